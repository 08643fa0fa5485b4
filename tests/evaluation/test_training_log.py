"""Reading of fairseq's training log."""

import pytest

from mla_fairseq.evaluation.training_log import parse_line, read_training_log


def test_a_resumed_training_is_one_curve(train_log):
    log = read_training_log(train_log)
    assert [(point.update, point.loss) for point in log.train] == [(10, 6.0), (20, 4.0), (25, 3.0)]
    assert [(point.update, point.loss) for point in log.valid] == [(10, 5.0), (30, 2.5)]
    assert log.updates == 32
    assert log.parameters == 2_506_624


def test_the_pause_is_not_training_time(train_log):
    """The first session logged 150 seconds, the second 120."""
    log = read_training_log(train_log)
    assert log.minutes == pytest.approx(4.5)
    assert [point.minutes for point in log.train] == pytest.approx([1.0, 2.0, 3.5])


def test_speed_is_the_median_of_the_intervals(train_log):
    """One of four intervals contained something else, such as a validation."""
    log = read_training_log(train_log)
    assert log.words_per_second == pytest.approx(95.0)
    assert log.updates_per_second == pytest.approx(1.9)


def test_perplexity_is_without_label_smoothing(train_log):
    assert read_training_log(train_log).train[0].perplexity == pytest.approx(64.0)


def test_a_log_truncated_within_a_line_is_read_up_to_there(train_log):
    whole = train_log.read_text(encoding="utf-8")
    train_log.write_text(whole[: whole.index('"num_updates": "20"')], encoding="utf-8")
    assert [point.update for point in read_training_log(train_log).train] == [10]


def test_an_empty_log_has_no_points(tmp_path):
    (tmp_path / "train.log").touch()
    log = read_training_log(tmp_path / "train.log")
    assert (log.train, log.valid, log.updates, log.words_per_second) == ([], [], 0, None)


def test_a_missing_log_is_reported(tmp_path):
    with pytest.raises(ValueError, match=r"train\.log is missing"):
        read_training_log(tmp_path / "train.log")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param('2030-01-01 12:00:00 | INFO | train | {"a": "1"}', {"a": "1"}, id="statistics"),
        pytest.param("2030-01-01 12:00:00 | WARNING | x.y | {not json}", "{not json}", id="braces-in-a-message"),
        pytest.param("2030-01-01 12:00:00 | INFO | x | a | b", "a | b", id="message-with-a-bar"),
    ],
)
def test_a_line_has_a_time_a_tag_and_a_message(line, message):
    time, tag, found = parse_line(line)
    assert time.year == 2030
    assert tag == line.split(" | ")[2]
    assert found == message


@pytest.mark.parametrize("line", ["", "Traceback (most recent call last):", "2030-01-01 | INFO | x | y"])
def test_other_lines_are_ignored(line):
    assert parse_line(line) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [('"num_updates": "10"', '"num_updates": "1O"'), ('"nll_loss": "6.0"', '"nll_loss": null'), ('"wps"', '"ups"')],
)
def test_a_line_with_damaged_statistics_is_named(train_log, old, new):
    text = train_log.read_text()
    assert old in text
    train_log.write_text(text.replace(old, new, 1).replace('"update": "1.25"', '"update": []'))
    with pytest.raises(ValueError, match=r"train\.log:4 has damaged statistics \(.*\): delete the line"):
        read_training_log(train_log)
