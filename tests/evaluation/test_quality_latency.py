"""The quality-latency table and its picture."""

from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mla_fairseq.cli.plot import main
from mla_fairseq.evaluation import quality_latency
from mla_fairseq.evaluation.quality_latency import Point, draw_quality_latency, read_points, write_points
from mla_fairseq.evaluation.simultaneous import score_log

matplotlib = pytest.importorskip("matplotlib")
ROWS = [
    {"system": system, "k": k, "bleu": bleu, "al": 500.0 + 280 * k, "laal": 600.0 + 280 * k, "offline_bleu": offline}
    for system, offline, scores in (("softmax", 22.7, (9.0, 14.0, 17.5)), ("cos $x$", None, (8.8, 13.9, 17.4)))
    for k, bleu in zip((1, 3, 9), scores, strict=True)
]


@pytest.fixture
def points(tmp_path) -> Path:
    path = tmp_path / "table" / "points.tsv"
    write_points(path, ROWS)
    return path


@pytest.fixture
def drawn(points, tmp_path, monkeypatch):
    """The axes of the picture of the table, before it is saved."""
    figures = []
    monkeypatch.setattr(quality_latency, "save", lambda figure, stem: figures.append(figure) or [])
    draw_quality_latency(points, tmp_path / "curve")
    return figures[0].axes[0]


def test_a_table_is_read_as_it_was_written(points):
    found = read_points(points)
    assert [(point.system, point.knob, point.setting) for point in found[2:4]] == [
        ("softmax", "k", "9"),
        ("cos $x$", "k", "1"),
    ]
    assert found[0].figures["bleu"] == 9.0
    assert found[0].figures["offline_bleu"] == 22.7
    assert "offline_bleu" not in found[3].figures
    assert [path.name for path in points.parent.iterdir()] == ["points.tsv"]


def test_scores_go_into_the_table_as_they_are(write_log, tmp_path):
    scores = score_log(write_log({}))
    write_points(tmp_path / "points.tsv", [{"system": "a", "chunk": 7, **asdict(scores)}])
    (point,) = read_points(tmp_path / "points.tsv")
    assert (point.knob, point.setting) == ("chunk", "7")
    assert point.figures["laal_ca"] == pytest.approx(scores.laal_ca, abs=1e-3)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        pytest.param([], "no point to write", id="none"),
        pytest.param([{"k": 3}], "lacks 'system'", id="no-system"),
        pytest.param([{"system": "a", "bleu": 1}], "all of k, chunk", id="no-setting"),
        pytest.param([{"system": "a\tb", "k": 3}], "tab", id="tab"),
    ],
)
def test_a_row_that_cannot_be_written_is_reported(tmp_path, rows, words):
    with pytest.raises(ValueError, match=words):
        write_points(tmp_path / "points.tsv", rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(None, "is missing: write it with", id="missing"),
        pytest.param("system\tk\tbleu\n", "contains no point", id="empty"),
        pytest.param("system\tbleu\na\t3\n", r"line 2 lacks 'system' or all of k, chunk", id="no-setting"),
        pytest.param("system\tk\tbleu\na\t3\t4\n\t5\t6\n", "line 3 lacks", id="no-system"),
    ],
)
def test_a_table_that_cannot_be_read_is_reported(tmp_path, text, words):
    path = tmp_path / "points.tsv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=rf"points\.tsv.*{words}"):
        read_points(path)


def test_a_missing_score_is_reported_before_anything_is_written(points, tmp_path):
    with pytest.raises(ValueError, match=r"softmax, k=1 has no 'dal' \(it has k, bleu, al, laal"):
        draw_quality_latency(points, tmp_path / "curve", x="dal")
    with pytest.raises(ValueError, match="no point to draw"):
        draw_quality_latency([], tmp_path / "curve")
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_each_system_is_a_line_and_its_offline_score_is_dashed(drawn):
    curves = {line.get_label(): line for line in drawn.lines}
    assert list(curves) == ["softmax", "softmax, offline: 22.7", "cos $x$"]
    assert curves["softmax"].get_xdata() == pytest.approx([780, 1340, 3020])
    assert curves["cos $x$"].get_ydata() == pytest.approx([8.8, 13.9, 17.4])
    dashed = curves["softmax, offline: 22.7"]
    assert (dashed.get_linestyle(), dashed.get_color()) == ("--", curves["softmax"].get_color())
    assert drawn.get_xlabel() == "average lagging AL (ms)"


def test_labels_cover_neither_each_other_nor_points(drawn):
    renderer = drawn.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in drawn.texts]
    assert [text.get_text() for text in drawn.texts] == ["1", "3", "9"] * 2
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    dots = np.concatenate(
        [line.get_transform().transform(line.get_xydata()) for line in (drawn.lines[0], drawn.lines[2])]
    )
    assert not any(box.contains(*dot) for box in boxes for dot in dots)


def test_settings_of_two_knobs_are_distinguished(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(quality_latency, "save", lambda figure, stem: figures.append(figure) or [])
    figure = {"al": 900.0, "bleu": 20.0}
    draw_quality_latency([Point("a", "k", "3", figure), Point("b", "chunk", "7", figure)], tmp_path / "curve")
    assert [text.get_text() for text in figures[0].axes[0].texts] == ["k=3", "chunk=7"]


def test_the_same_table_gives_the_same_two_pictures_and_no_other_file(points, tmp_path):
    out = tmp_path / "pictures"
    first = {path.name: path.read_bytes() for path in draw_quality_latency(points, out / "curve", title="$ and $")}
    again = {path.name: path.read_bytes() for path in draw_quality_latency(points, out / "curve", title="$ and $")}
    assert first == again
    assert sorted(path.name for path in out.iterdir()) == sorted(first) == ["curve.png", "curve.svg"]
    assert b"<dc:date>" not in first["curve.svg"]


def test_the_script_draws_and_names_what_is_wrong(points, tmp_path, capsys):
    stem = str(tmp_path / "out" / "curve")
    main([str(points), "--output", stem, "--latency", "laal"])
    assert capsys.readouterr().out.split() == [f"{stem}.png", f"{stem}.svg"]
    alone = Path(f"{stem}.svg").read_bytes()
    write_points(tmp_path / "other.tsv", [{**ROWS[0], "system": "another"}])
    main([str(points), str(tmp_path / "other.tsv"), "--output", stem])
    assert len(Path(f"{stem}.svg").read_bytes()) > len(alone)
    with pytest.raises(SystemExit, match=r"^error: .*no\.tsv is missing"):
        main([str(tmp_path / "no.tsv"), "--output", stem])


@pytest.mark.parametrize("value", ["1e308", "nan", "-inf", "1e12"])
@pytest.mark.parametrize("column", ["al", "bleu", "offline_bleu"])
def test_numbers_that_cannot_be_drawn_are_refused(tmp_path, column, value):
    row = {"system": "a", "k": 1, "bleu": 10.0, "al": 900.0, "offline_bleu": 20.0, column: value}
    write_points(tmp_path / "points.tsv", [row])
    with pytest.raises(ValueError, match=rf"a, k=1 has a {column} that cannot be drawn \(.*\): correct the table"):
        draw_quality_latency(tmp_path / "points.tsv", tmp_path / "curve")
    assert not (tmp_path / "curve.svg").exists()
