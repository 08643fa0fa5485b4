"""The picture of a training."""

import xml.etree.ElementTree as ElementTree

import pytest

from mla_fairseq.evaluation.curves import draw_training_curve

matplotlib = pytest.importorskip("matplotlib")


def test_both_pictures_are_written_and_nothing_else(train_log, tmp_path):
    out = tmp_path / "pictures"
    out.mkdir()
    written = draw_training_curve(train_log, out / "curve", "a title")
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


def test_a_log_without_statistics_is_named(tmp_path):
    (tmp_path / "train.log").write_text("nothing yet\n")
    with pytest.raises(ValueError, match=r"train\.log holds no training statistics.*--log-format json"):
        draw_training_curve(tmp_path / "train.log", tmp_path / "curve")
    assert [path.name for path in tmp_path.iterdir()] == ["train.log"]
