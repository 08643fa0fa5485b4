"""The training curve."""

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_fairseq.evaluation.curves import draw_training_curve, perplexity_ticks

matplotlib = pytest.importorskip("matplotlib")


def test_the_same_log_gives_the_same_two_pictures_and_no_other_file(train_log, tmp_path):
    out = tmp_path / "pictures"
    out.mkdir()
    written = draw_training_curve(train_log, out / "curve", "a title")
    first = [path.read_bytes() for path in written]
    assert first == [path.read_bytes() for path in draw_training_curve(train_log, out / "curve", "a title")]
    assert sorted(out.iterdir()) == sorted(written) == [out / "curve.png", out / "curve.svg"]
    height, width, _ = matplotlib.image.imread(out / "curve.png").shape
    assert width > height > 100
    assert ElementTree.parse(out / "curve.svg").getroot().tag.endswith("svg")


def test_the_picture_shows_train_and_valid_over_updates_and_minutes(train_log, tmp_path):
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw_training_curve(train_log, tmp_path / "curve", "a title")
    text = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    for word in ("a title", "train", "valid", "updates", "minutes", "loss per target token (bits)", "perplexity"):
        assert f">{word}<" in text


def test_a_log_without_statistics_is_reported(tmp_path):
    (tmp_path / "train.log").write_text("nothing yet\n")
    with pytest.raises(ValueError, match=r"train\.log contains no training statistics.*--log-format json"):
        draw_training_curve(tmp_path / "train.log", tmp_path / "curve")
    assert [path.name for path in tmp_path.iterdir()] == ["train.log"]


@given(low=st.floats(0, 10), bits=st.floats(0.05, 30))
def test_perplexity_ticks_are_round_and_never_crowd(low, bits):
    ticks = perplexity_ticks(low, low + bits)
    places = [math.log2(tick) for tick in ticks]
    assert len(ticks) >= 2
    assert all(low - 1e-9 <= place <= low + bits + 1e-9 for place in places)
    assert all(later - earlier >= 0.06 * bits for earlier, later in pairwise(places))
    assert all(float(f"{tick:.4g}") == pytest.approx(tick) for tick in ticks)


def test_perplexity_ticks_of_a_common_axis():
    assert perplexity_ticks(2.1, 9) == [5, 10, 20, 50, 100, 200, 500]
