"""Scores of whole recordings; tests that need the program OmniSTEval are skipped without it."""

import json
import logging
import random
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from mla_fairseq.cli.evaluate import main
from mla_fairseq.evaluation.instances import Instance, read_instances
from mla_fairseq.evaluation.latency import METRICS
from mla_fairseq.evaluation.long_form import on_a_clock, score_recordings
from mla_fairseq.evaluation.omnisteval import AlignedSegment
from mla_fairseq.evaluation.positions import draw_positions, mean_laal
from mla_fairseq.evaluation.quality_latency import read_points
from mla_fairseq.evaluation.segmentation import by_recording, read_segmentation
from mla_fairseq.evaluation.simultaneous import score_log
from tests.evaluation.conftest import simul_sentence

needs_omnisteval = pytest.mark.skipif(
    find_spec("omnisteval") is None, reason="OmniSTEval is not installed (extra long-form)"
)
TALKS = {
    "a": ["Ein Hund bellt laut", "der Mond scheint hell", "wir gehen morgen früh", "Äpfel liegen unter dem Baum"],
    "b": ["das Boot fährt schnell", "niemand hat etwas gehört"],
}
SEGMENT, PAUSE = 2.0, 0.5
"""Seconds of a segment, and between two."""


def talk(name: str, index: int, lag: float = 1000, spoken: int = 9) -> dict:
    """Return a log line: the word at place i of a segment comes ``lag`` + 500 * i ms after the segment's start."""
    starts = [1000 * (PAUSE + place * (SEGMENT + PAUSE)) for place in range(len(TALKS[name]))]
    timed = [
        (word, start + lag + 500 * place)
        for start, text in list(zip(starts, TALKS[name], strict=True))[:spoken]
        for place, word in enumerate(text.split())
    ]
    return simul_sentence(
        index=index,
        prediction=" ".join(word for word, _ in timed),
        delays=[time for _, time in timed],
        # SimulEval's: 10 ms of computing before each word, added up
        elapsed=[time + 10 * count for count, (_, time) in enumerate(timed, start=1)],
        source=[f"/somewhere/{name}.wav", "samplerate: 16000 Hz"],
        source_length=starts[-1] + 1000 * (SEGMENT + PAUSE) + lag,
        reference=" ".join(TALKS[name]),
    )


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """The segmentation and its references; the segments of a recording are not together."""
    rows = [
        (name, PAUSE + place * (SEGMENT + PAUSE), text)
        for name, texts in TALKS.items()
        for place, text in enumerate(texts)
    ]
    rows = [rows[place] for place in (0, 4, 1, 2, 5, 3)]
    paths = [tmp_path / "dev.segments.yaml", tmp_path / "dev.segments.de"]
    entries = [f"- {{duration: {SEGMENT}, offset: {offset}, wav: {name}.wav, rW: 1}}\n" for name, offset, _ in rows]
    paths[0].write_text("".join(entries))
    paths[1].write_text("".join(f"{text}\n" for *_, text in rows), encoding="utf-8")
    return paths


@pytest.fixture
def write_talks(tmp_path: Path):
    """Writes a log of lines; returns its path."""

    def write(*lines: dict, name: str = "run") -> Path:
        path = tmp_path / name / "instances.log"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return write


@needs_omnisteval
def test_perfect_translations(write_talks, places):
    """Words come evenly, 1 s late, so each mean lag is 1 s; SimulEval's sum would add 65 ms of computing, not 10."""
    log = write_talks(talk("a", 1), talk("b", 0))
    scores, aligned = score_recordings(read_instances(log), read_segmentation(*places))
    assert (scores.recordings, scores.segments, scores.empty) == (2, 6, 0)
    assert (scores.words, scores.reference_words) == (25, 25)
    assert (scores.bleu, scores.chrf) == pytest.approx((100, 100))
    five_words = 1000 + (0 + 100 + 200) / 3  # the ideal writes five words in 2 s; the last two come after the end
    laal = (5 * 1000 + five_words) / 6
    assert scores.long_laal == pytest.approx(laal, abs=0.1) == mean_laal(aligned)
    assert scores.long_laal_ca == pytest.approx(laal + 10, abs=0.1)
    # LongYAAL leaves out words after the end of the last segment: of its five words two remain
    assert scores.long_yaal == pytest.approx((5 * 1000 + 1050) / 6, abs=0.1)
    assert [one.offset for one in aligned] == [0.5, 3.0, 5.5, 8.0, 0.5, 3.0]
    sums, _ = score_recordings(read_instances(log), read_segmentation(*places), elapsed="clock")
    assert sums.long_laal_ca > scores.long_laal_ca + 50


@needs_omnisteval
def test_as_omnisteval_itself(write_talks, places, tmp_path):
    """On files as it wants them: recordings together, all with elapsed times. Words are wrong and missing."""
    lines = [talk("a", 0, lag=300), talk("b", 1, spoken=1)]
    lines[0]["prediction"] = lines[0]["prediction"].replace("Mond", "Hund").replace("morgen", "Baum")
    segments = read_segmentation(*places)
    (tmp_path / "s.json").write_text(json.dumps([vars(one) for one in segments]))
    (tmp_path / "r").write_text("".join(f"{one.reference}\n" for one in segments))
    log = write_talks(*lines)
    files = ["--hypothesis_file", log, "--speech_segmentation", "s.json", "--ref_sentences_file", "r"]
    theirs = omnisteval("longform", *files, cwd=tmp_path)
    scores, _ = score_recordings(read_instances(log), segments, elapsed="clock")
    assert scores.empty == 1
    assert scores.words == 21 and scores.reference_words == 25
    assert scores.bleu == pytest.approx(theirs["BLEU"], abs=1e-4)
    assert scores.chrf == pytest.approx(theirs["chrF"], abs=1e-4)
    assert scores.long_yaal == theirs["LongYAAL (CU)"]
    assert scores.long_laal == theirs["LongLAAL (CU)"]
    assert scores.long_yaal_ca == theirs["LongYAAL (CA)"]
    assert scores.long_laal_ca == theirs["LongLAAL (CA)"]


def omnisteval(*arguments: object, cwd: Path) -> dict[str, float]:
    """Run OmniSTEval; return its scores."""
    command = [Path(sys.executable).with_name("omnisteval"), *arguments, "--word_level", "--output_folder", "theirs"]
    subprocess.run([str(word) for word in command], cwd=cwd, check=True, capture_output=True, timeout=100)
    rows = [line.split("\t") for line in (cwd / "theirs" / "scores.tsv").read_text().splitlines()[1:]]
    return {name: float(value) for name, value in rows if value not in ("YES", "NO")}


@needs_omnisteval
def test_scores_of_sentences_as_omnisteval(write_talks, tmp_path):
    """Sentences of any length, with words before and after the end of the source, and empty ones."""
    draw = random.Random(1)
    lines = []
    for index in range(80):
        length = draw.uniform(200, 8000)
        delays = sorted(min(draw.uniform(0, 1.3 * length), length) for _ in range(draw.randrange(12)))
        elapsed = [delay + 30 * place for place, delay in enumerate(delays, start=1)]
        text = " ".join(draw.choices(" ".join(TALKS["a"]).split(), k=len(delays)))
        reference = " ".join(draw.choices(" ".join(TALKS["a"]).split(), k=draw.randrange(1, 12)))
        line = {"index": index, "prediction": text, "delays": delays, "elapsed": elapsed, "reference": reference}
        lines.append(simul_sentence(**line, source_length=length))
    log = write_talks(*lines)
    (tmp_path / "r").write_text("".join(f"{line['reference']}\n" for line in lines), encoding="utf-8")
    theirs = omnisteval("shortform", "--hypothesis_file", log, "--ref_sentences_file", "r", cwd=tmp_path)
    scores = score_log(log)
    assert (scores.bleu, scores.chrf) == pytest.approx((theirs["BLEU"], theirs["chrF"]), abs=1e-4)
    for name in METRICS:
        assert getattr(scores, name) == pytest.approx(theirs[f"{name.upper()} (CU)"], abs=1e-4), name
        assert getattr(scores, f"{name}_ca") == pytest.approx(theirs[f"{name.upper()} (CA)"], abs=1e-4), name


@needs_omnisteval
def test_characters_and_logs_without_computing_time(write_talks, places):
    lines = [talk("a", 0), talk("b", 1)]
    for line in lines:
        words = zip(line["prediction"].split(), line["delays"], strict=True)
        line.update(delays=[time for word, time in words for _ in word])
        del line["elapsed"]
    scores, _ = score_recordings(read_instances(write_talks(*lines), "char"), read_segmentation(*places), unit="char")
    assert scores.words == scores.reference_words == sum(len(line["delays"]) for line in lines)
    assert scores.chrf == pytest.approx(100)
    assert scores.long_yaal is not None and scores.long_yaal_ca is None and scores.long_laal_ca is None


@needs_omnisteval
def test_a_negative_latency_is_no_result(write_talks, places, caplog):
    """A system that writes each sentence before it is spoken cannot exist; one that went silent looks like it."""
    lines = [talk("a", 0, lag=0), talk("b", 1, lag=0)]
    for line in lines:
        line.update(delays=[0.0] * len(line["delays"]), elapsed=[])
    with caplog.at_level(logging.WARNING):
        scores, _ = score_recordings(read_instances(write_talks(*lines)), read_segmentation(*places))
    assert (scores.long_yaal, scores.long_laal) == (None, None)
    assert "LongYAAL (CU) is negative (-" in caplog.text and "0 of 6 segments are empty" in caplog.text


@needs_omnisteval
def test_nothing_written(write_talks, places):
    lines = [{**talk(name, index), "prediction": "", "delays": [], "elapsed": []} for index, name in enumerate("ab")]
    scores, _ = score_recordings(read_instances(write_talks(*lines)), read_segmentation(*places))
    assert (scores.empty, scores.words, scores.bleu, scores.long_yaal) == (6, 0, 0, None)


@needs_omnisteval
def test_table_json_points_and_picture(write_talks, places, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    logs = [
        write_talks(talk("a", 0), talk("b", 1), name="k3"),
        write_talks(talk("a", 0, 1500), talk("b", 1), name="k$9"),
    ]
    outputs = ["--output", tmp_path / "s.json", "--points", tmp_path / "p.tsv", "--system", "x"]
    run("--long-form", places[0], "--references", places[1], *logs, *outputs, "--positions", tmp_path / "along")
    shown = capsys.readouterr().out
    scores = json.loads((tmp_path / "s.json").read_text())
    for name, row in scores.items():
        assert f"| {name} | 100.00 | 100.00 | {row['long_yaal']:.0f} | {row['long_laal']:.0f} |" in shown
    assert "| 6 | 0 | 25 | 25 |" in shown
    assert "OmniSTEval-" in shown
    assert [point.figures["long_laal"] for point in read_points(tmp_path / "p.tsv")] == [
        pytest.approx(row["long_laal"], abs=1e-4) for row in scores.values()
    ]
    assert str(tmp_path / "along.svg") in shown and (tmp_path / "along.png").is_file()


def test_a_negative_latency_has_no_point(tmp_path, monkeypatch):
    Axes = pytest.importorskip("matplotlib.axes").Axes
    drawn, plot = [], Axes.plot

    def record(axes, x, y, **style):
        drawn.append([*zip(x, y, strict=True)])
        plot(axes, x, y, **style)

    monkeypatch.setattr(Axes, "plot", record)
    aligned = [AlignedSegment(600 * place, 2000, "a", "a", 1, (900 - 1000 * place,)) for place in range(2)]
    draw_positions({"x": [*aligned, AlignedSegment(300, 2000, "", "a", 1, ())]}, tmp_path / "along")
    quality, latency = drawn
    assert [minute for minute, _ in quality] == [0.5, 5.5, 9.5]
    assert latency == [(0.5, 900)]


def run(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--long-form", "a.yaml"], "--long-form needs the references of its segments: add --references FILE"),
        (["--references", "a"], "--references has no effect without --long-form: give both"),
        (["--elapsed", "clock"], "--elapsed has no effect without --long-form: give both"),
        (["--long-form", "a.yaml", "--references", "a", "--first", "1"], "--first has no effect with --long-form"),
        (["--long-form", "no.yaml", "--references", "a"], "no.yaml is missing: write it with mla-segments"),
    ],
)
def test_flags_that_do_not_fit_are_refused(write_talks, arguments, message):
    with pytest.raises(SystemExit, match=f"^error: {message}"):
        run(write_talks(talk("a", 0)), *arguments)


def test_the_error_of_one_log_names_it(write_talks, places, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "0.1.10")
    with pytest.raises(SystemExit, match=r"^error: run: b.wav is not translated: translate it, or leave it out"):
        run(write_talks(talk("a", 0)), "--long-form", places[0], "--references", places[1])


def test_a_missing_or_old_program_is_reported(write_talks, places, monkeypatch):
    instances, segments = read_instances(write_talks(talk("a", 0))), read_segmentation(*places)
    monkeypatch.setattr(metadata, "version", lambda name: "0.1.9")
    with pytest.raises(SystemExit, match=r"OmniSTEval is too old \(0.1.9\): install the extra long-form"):
        score_recordings(instances, segments)

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(SystemExit, match=r"omnisteval: install the extra long-form: pip install"):
        score_recordings(instances, segments)


def test_simulevals_sums_become_times_of_a_clock():
    """The second word waits for audio while nothing is computed; the third waits for computing."""
    instance = Instance(0, ("a", "b", "c"), (100, 1000, 1010), (140, 1090, 1200), "a b c", "r", 1, 2000)
    assert on_a_clock(instance).elapsed == (140, 1050, 1150)
    assert on_a_clock(replace(instance, elapsed=())).elapsed == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("a: 1", "is not a list of segments"),
        ("[]", "is not a list of segments"),
        ("- {wav: a.wav, offset: 1}", r"entry 1 lacks a wav, an offset or a positive duration in seconds \(\{"),
        ("- {wav: a.wav, offset: x, duration: 1}", "entry 1 lacks"),
        ("- {wav: a.wav, offset: 0, duration: 0}", "entry 1 lacks"),
        ("- {wav: a.wav, offset: .inf, duration: 1}", "entry 1 lacks"),
        ("- a.wav", "entry 1 lacks"),
        ("- {wav: a.wav, offset: 0, duration: 1}\n" * 2, "r has 1 lines, but .* has 2 segments"),
    ],
)
def test_a_wrong_segmentation_is_refused(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text)
    (tmp_path / "r").write_text("ein Satz\n")
    with pytest.raises(ValueError, match=message):
        read_segmentation(tmp_path / "s.yaml", tmp_path / "r")


def test_recordings_of_equal_names_are_refused(tmp_path):
    (tmp_path / "s.yaml").write_text("".join(f"- {{wav: {one}/t.wav, offset: 0, duration: 1}}\n" for one in "ab"))
    (tmp_path / "r").write_text("x\ny\n")
    with pytest.raises(ValueError, match=r"a/t.wav and b/t.wav have the same name"):
        read_segmentation(tmp_path / "s.yaml", tmp_path / "r")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{}, {"source": ["a.wav"]}], r"a.wav is translated twice \(sentence 1\)"),
        ([{}, {"source": ["c.wav"]}], r"sentence 1 translates 'c.wav', which is no recording of the segmentation"),
        ([{}, {"source": []}], "sentence 1 translates '', which is no recording"),
    ],
)
def test_a_log_of_other_recordings_is_refused(write_talks, places, changes, message):
    log = write_talks(*({**talk("a", index), **change} for index, change in enumerate(changes)))
    with pytest.raises(ValueError, match=message):
        by_recording(read_instances(log), read_segmentation(*places))


@pytest.mark.parametrize("late", [{"offset": 20.0}, {"duration": 20.0}, {"offset": 10.2, "duration": 5.0}])
def test_segments_beyond_the_end_of_a_recording_are_refused(write_talks, places, late):
    instances, segments = read_instances(write_talks(talk("a", 0), talk("b", 1))), read_segmentation(*places)
    length = instances[0].source_length / 1000
    nearly = replace(segments[3], duration=length + 0.4 - segments[3].offset)
    assert by_recording(instances, [*segments[:3], nearly, *segments[4:]])
    beyond = replace(segments[3], **late)
    message = rf"a segment of a.wav is from .* s, but the log has {length:g} s of that recording \(sentence 0\): "
    with pytest.raises(ValueError, match=message):
        by_recording(instances, [*segments[:3], beyond, *segments[4:]])


def test_segments_in_another_order_than_time_are_refused(places):
    lines = places[0].read_text().splitlines(keepends=True)
    places[0].write_text("".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
    with pytest.raises(
        ValueError, match=r"entry 4 \(a.wav, 3 s\) comes after a later one .*\(5.5 s\): sort it and its"
    ):
        read_segmentation(*places)
