"""Reading of SimulEval's log."""

import pytest

from mla_fairseq.evaluation.instances import Instance, read_instances


def test_a_line_becomes_an_instance(write_log):
    assert read_instances(write_log({})) == [
        Instance(
            index=0,
            units=("drei", "$", "5", "und"),
            delays=(560.0, 840.0, 1600.0, 1600.0),
            elapsed=(600.0, 900.0, 1700.0, 1700.0),
            prediction="drei $ 5 und",
            reference="drei oder fünf und mehr",
            reference_length=5,
            source_length=1600.0,
            source=("no/such.wav", "samplerate: 16000 Hz"),
        )
    ]


def test_a_folder_may_be_given_and_sentences_are_sorted(write_log):
    log = write_log({"index": 2}, {"index": 0}, {"index": 1})
    assert [instance.index for instance in read_instances(log.parent)] == [0, 1, 2]


def test_an_empty_translation_is_kept(write_log):
    (instance,) = read_instances(write_log({"prediction": "", "delays": [], "elapsed": []}))
    assert (instance.units, instance.delays, instance.reference_length) == ((), (), 5)


@pytest.mark.parametrize("elapsed", [[], None])
def test_a_log_without_elapsed_times_is_read(write_log, elapsed):
    (instance,) = read_instances(write_log({"elapsed": elapsed}))
    assert instance.elapsed == ()


def test_characters_are_units_on_demand(write_log):
    changes = {"prediction": "你好吗", "delays": [1, 2, 3], "elapsed": [1, 2, 3], "reference": " 你好 吗"}
    (instance,) = read_instances(write_log(changes), unit="char")
    assert (instance.units, instance.reference_length) == (("你", "好", "吗"), 4)
    with pytest.raises(
        ValueError, match=r"line 1: the number of delays \(3\) is not that of words \(1\).*--eval-latency-unit"
    ):
        read_instances(write_log(changes))


def test_separator_joins_units_to_the_prediction(write_log):
    (words,) = read_instances(write_log({}))
    (chars,) = read_instances(write_log({"prediction": "ab", "delays": [1, 2], "elapsed": []}), "char")
    for instance in (words, chars):
        assert instance.separator.join(instance.units) == instance.prediction


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"delays": [1.0, 2.0, 3.0]}, r"number of delays \(3\) is not that of words \(4\)", id="delays-missing"
        ),
        pytest.param(
            {"elapsed": [2000.0] * 5},
            r"number of elapsed times \(5\) is not that of words \(4\)",
            id="elapsed-too-many",
        ),
        pytest.param({"delays": [5, 4, 6, 7], "elapsed": []}, r"delays decrease \(5 to 4 ms\)", id="delays-fall"),
        pytest.param(
            {"elapsed": [2000, 1700, 2000, 2000]}, r"elapsed times decrease \(2000 to 1700", id="elapsed-fall"
        ),
        pytest.param({"elapsed": [100, 900, 1700, 1700]}, "clock was set back", id="elapsed-before-delay"),
        pytest.param({"delays": [1, 2, 3, "x"]}, "'delays' is not a list of times in ms", id="no-number"),
        pytest.param({"delays": "x\n"}, r"'delays' is not a list of times in ms \('x\\n'\)", id="a-line-break"),
        pytest.param({"delays": [-1, 2, 3, 4]}, "'delays' is not a list of times in ms", id="negative"),
        pytest.param({"delays": [1, 2, 3, float("nan")]}, "'delays' is not a list of times in ms", id="nan"),
        pytest.param({"source_length": 0}, r"the source has no length \(0 ms\): delete", id="no-source"),
        pytest.param({"source_length": None}, r"the source has no length \(None ms\)", id="length-unknown"),
        pytest.param({"prediction": None}, r"'prediction' is not of type str \(None\)", id="no-prediction"),
        pytest.param({"index": "7"}, r"'index' is not of type int \('7'\)", id="index-is-text"),
        pytest.param({"durations": [1]}, "speech-to-speech", id="speech-to-speech"),
    ],
)
def test_an_inconsistent_line_is_reported(write_log, changes, words):
    log = write_log({}, {"index": 1, **changes})
    with pytest.raises(ValueError, match=rf"instances\.log line 2.*{words}"):
        read_instances(log)


@pytest.mark.parametrize("keep", [20, -3])
def test_a_line_truncated_by_a_kill_is_reported(write_log, keep):
    log = write_log({}, {"index": 1})
    whole = log.read_text()
    first, second, _ = whole.split("\n")
    log.write_text(f"{first}\n{second[:keep]}")
    with pytest.raises(ValueError, match=r"line 2 is truncated.*delete the line.*--continue-unfinished"):
        read_instances(log)
    log.write_text(f"{first[:keep]}{second}\n")
    with pytest.raises(ValueError, match=r"line 1 is truncated.*translate its sentence again"):
        read_instances(log)


def test_a_repeated_index_is_reported_with_both_lines(write_log):
    with pytest.raises(ValueError, match=r"instances\.log line 3 repeats index 4 of line 1: delete"):
        read_instances(write_log({"index": 4}, {"index": 5}, {"index": 4}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "contains no sentence", id="empty"),
        pytest.param("\n\n", "contains no sentence", id="blank"),
        pytest.param("[1]\n", "line 1 is not a sentence", id="a-list"),
        pytest.param('{"index": 0}\n', "line 1 has no 'prediction'", id="another-json"),
        pytest.param(b"\xff\xfe\x00", "is not text", id="binary"),
    ],
)
def test_another_file_is_reported(tmp_path, text, words):
    log = tmp_path / "instances.log"
    log.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"instances\.log.*{words}"):
        read_instances(log)


def test_a_missing_log_and_an_unknown_unit_are_reported(tmp_path):
    with pytest.raises(ValueError, match=r"instances\.log is missing: give the --output folder"):
        read_instances(tmp_path)
    with pytest.raises(ValueError, match=r"unknown latency unit \('spm'\): choose one of word, char"):
        read_instances(tmp_path, "spm")
