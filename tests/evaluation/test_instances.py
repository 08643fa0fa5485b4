"""Reading SimulEval's log."""

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


def test_a_folder_stands_for_its_log_and_sentences_are_sorted(write_log):
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
    with pytest.raises(ValueError, match=r"line 1: 3 delays for 1 words.*--eval-latency-unit"):
        read_instances(write_log(changes))


def test_separator_joins_units_to_the_prediction(write_log):
    (words,) = read_instances(write_log({}))
    (chars,) = read_instances(write_log({"prediction": "ab", "delays": [1, 2], "elapsed": []}), "char")
    for instance in (words, chars):
        assert instance.separator.join(instance.units) == instance.prediction


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"delays": [1.0, 2.0, 3.0]}, "3 delays for 4 words", id="delays-missing"),
        pytest.param({"elapsed": [2000.0] * 5}, "5 elapsed times for 4 words", id="elapsed-too-many"),
        pytest.param({"delays": [5, 4, 6, 7], "elapsed": []}, "delays fall from 5 to 4 ms", id="delays-fall"),
        pytest.param({"elapsed": [2000, 1700, 2000, 2000]}, "elapsed times fall from 2000 to 1700", id="elapsed-fall"),
        pytest.param({"elapsed": [100, 900, 1700, 1700]}, "clock was set back", id="elapsed-before-delay"),
        pytest.param({"delays": [1, 2, 3, "x"]}, "'delays' must be a list of milliseconds", id="no-number"),
        pytest.param({"delays": [-1, 2, 3, 4]}, "'delays' must be a list of milliseconds", id="negative"),
        pytest.param({"delays": [1, 2, 3, float("nan")]}, "'delays' must be a list of milliseconds", id="nan"),
        pytest.param({"source_length": 0}, "the source is 0 ms long; leave", id="no-source"),
        pytest.param({"source_length": None}, "the source is None ms long", id="length-unknown"),
        pytest.param({"prediction": None}, "'prediction' is None, but must be str", id="no-prediction"),
        pytest.param({"index": "7"}, "'index' is '7', but must be int", id="index-is-text"),
        pytest.param({"durations": [1]}, "speech-to-speech", id="speech-to-speech"),
    ],
)
def test_a_line_that_cannot_be_is_named(write_log, changes, words):
    log = write_log({}, {"index": 1, **changes})
    with pytest.raises(ValueError, match=rf"instances\.log line 2.*{words}"):
        read_instances(log)


@pytest.mark.parametrize("keep", [20, -3])
def test_a_line_cut_by_a_kill_is_named_wherever_it_is(write_log, keep):
    log = write_log({}, {"index": 1})
    whole = log.read_text()
    first, second, _ = whole.split("\n")
    log.write_text(f"{first}\n{second[:keep]}")
    with pytest.raises(ValueError, match=r"line 2 is cut off.*delete the line.*--continue-unfinished"):
        read_instances(log)
    log.write_text(f"{first[:keep]}{second}\n")
    with pytest.raises(ValueError, match=r"line 1 is cut off.*translate its sentence again"):
        read_instances(log)


def test_a_repeated_index_names_both_lines(write_log):
    with pytest.raises(ValueError, match=r"instances\.log line 3 repeats index 4 of line 1; delete"):
        read_instances(write_log({"index": 4}, {"index": 5}, {"index": 4}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "holds no sentence", id="empty"),
        pytest.param("\n\n", "holds no sentence", id="blank"),
        pytest.param("[1]\n", "line 1 is no sentence", id="a-list"),
        pytest.param('{"index": 0}\n', "line 1 has no 'prediction'", id="another-json"),
        pytest.param(b"\xff\xfe\x00", "is no text", id="binary"),
    ],
)
def test_another_file_is_named(tmp_path, text, words):
    log = tmp_path / "instances.log"
    log.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"instances\.log.*{words}"):
        read_instances(log)


def test_a_missing_log_and_a_wrong_unit_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"instances\.log does not exist; simuleval writes it"):
        read_instances(tmp_path)
    with pytest.raises(ValueError, match="unit is 'spm', but must be one of word, char"):
        read_instances(tmp_path, "spm")
