"""The picture of reads and writes."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from mla_fairseq.evaluation import timeline
from mla_fairseq.evaluation.instances import Instance, read_instances
from mla_fairseq.evaluation.timeline import MAX_WORDS, Waveform, draw_timeline

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture
def instance(write_log) -> Instance:
    return read_instances(write_log({}))[0]


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draw, and return the figure instead of saving it."""

    def call(*arguments):
        figures = []
        monkeypatch.setattr(timeline, "save", lambda figure, stem: figures.append(figure) or [])
        draw_timeline(arguments[0], tmp_path / "picture", *arguments[1:])
        return figures[0]

    return call


def long_instance(words: int) -> Instance:
    """Return a sentence of long words, one every 300 ms, the last ten at the end."""
    units = tuple(f"{'Donaudampfschifffahrt' * (1 + i % 2)}{i}" for i in range(words))
    delays = tuple(300.0 * min(i, words - 10) for i in range(words))
    elapsed = tuple(delay + 400 for delay in delays)
    return Instance(7, units, delays, elapsed, " ".join(units), "r " * 200, 200, delays[-1], ())


def waveform(seconds: float) -> Waveform:
    return Waveform(np.sin(np.arange(int(seconds * 16000)) / 50).astype("float32"), 16000)


def test_each_word_is_at_its_delay(draw, instance):
    axes = draw(instance).axes[0]
    words = [(text.get_text(), *text.xy) for text in axes.texts]
    assert words == [("drei", 0.56, 0), ("$", 0.84, 1), ("5", 1.6, 2), ("und", 1.6, 3)]
    dots = next(line for line in axes.lines if line.get_label() == "word at its delay")
    assert dots.get_xydata().tolist() == [[x, y] for _, x, y in words]


def test_the_diagonal_is_that_of_laal(draw, instance):
    axes = draw(instance).axes[0]
    ideal = next(line for line in axes.lines if line.get_label().startswith("ideal"))
    assert ideal.get_xdata() == pytest.approx([0, 0.32, 0.64, 0.96])  # 1.6 s for the five words of the reference
    assert axes.get_title("left") == "sentence 0, LAAL 0.68 s"


def test_computing_time_is_shown_where_there_is_any(draw, instance):
    def bars(one):
        return [bar for bar in draw(one).axes[0].collections if bar.get_label() == "computing time"]

    (bar,) = bars(instance)
    assert bar.get_segments()[1][:, 0] == pytest.approx([0.84, 0.9])
    assert not bars(replace(instance, elapsed=()))
    assert not bars(replace(instance, elapsed=instance.delays))


@pytest.mark.parametrize("words", [12, 90])
@pytest.mark.parametrize("audio", [False, True], ids=["no-waveform", "waveform"])
def test_words_are_readable(draw, words, audio):
    one = long_instance(words)
    figure = draw(one, waveform(one.source_length / 1000) if audio else None)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[-1].texts]
    assert len(boxes) == words
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    inside = figure.bbox
    assert all(
        inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 <= box.y1 <= inside.y1 for box in boxes
    )
    assert min(box.height for box in boxes) > 8


def test_the_waveform_is_above_the_words_on_the_same_axis(draw, instance):
    above, below = draw(instance, waveform(1.6)).axes
    assert above.get_xlim() == below.get_xlim()
    assert above.get_position().y0 > below.get_position().y1
    drawn = above.collections[0].get_paths()[0].get_extents()
    assert (drawn.x1, drawn.y0, drawn.y1) == pytest.approx((1.6, -1, 1), abs=0.01)


def test_words_are_not_formulas_and_long_ones_are_truncated(draw, instance):
    figure = draw(replace(instance, units=(r"$\no$", "la" * 900, "x", "y"), reference=r"$\no$"))
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.axes[0].texts[:2]] == [r"$\no$", "la" * 30 + "…"]
    assert figure.axes[0].get_position().width > 0.4


def test_one_word_after_the_source_is_drawn(draw):
    figure = draw(Instance(0, ("Ja",), (900.0,), (5000.0,), "Ja", "Ja", 1, 900.0))
    assert figure.axes[0].get_xlim()[1] >= 5


@pytest.mark.parametrize(
    ("change", "audio", "words"),
    [
        pytest.param(
            {"units": (), "delays": (), "elapsed": ()}, None, r"does not have 1 to 1000 words \(0\)", id="empty"
        ),
        pytest.param(
            {"units": ("a",) * (MAX_WORDS + 1)}, None, r"does not have 1 to 1000 words \(1001\)", id="too-long"
        ),
        pytest.param(
            {}, waveform(2.0), r"\(2000 ms\) does not have the length in the log \(1600 ms\)", id="another-audio"
        ),
    ],
)
def test_a_sentence_that_cannot_be_drawn_is_reported(instance, tmp_path, change, audio, words):
    out = tmp_path / "pictures"
    with pytest.raises(ValueError, match=rf"sentence 0.*{words}"):
        draw_timeline(replace(instance, **change), out / "picture", audio)
    assert not out.exists()


def test_the_same_sentence_gives_the_same_pictures(instance, tmp_path):
    out = tmp_path / "pictures"
    first = [path.read_bytes() for path in draw_timeline(instance, out / "a", waveform(1.6), "a $ title $")]
    assert first == [path.read_bytes() for path in draw_timeline(instance, out / "a", waveform(1.6), "a $ title $")]
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "a.svg"]
