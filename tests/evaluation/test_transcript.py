"""The transcript of what appeared when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_fairseq.evaluation.instances import Instance, read_instances
from mla_fairseq.evaluation.transcript import Moment, moments, transcript


@pytest.fixture
def instance(write_log) -> Instance:
    return read_instances(write_log({}))[0]


def test_words_of_one_moment_stay_together(instance):
    assert list(moments(instance)) == [Moment(0.56, ("drei",)), Moment(0.84, ("$",)), Moment(1.6, ("5", "und"))]
    assert [moment.seconds for moment in moments(instance, computation_aware=True)] == [0.6, 0.9, 1.7]


def test_each_line_continues_where_the_line_above_ended(instance):
    assert transcript(instance) == (
        "   0.56 s  drei\n"
        "   0.84 s       $\n"
        "   1.60 s  (end of speech)\n"
        "   1.60 s         5 und\n"
    )  # fmt: skip


def test_a_full_line_continues_at_the_left(instance):
    assert transcript(instance, width=20) == (
        "   0.56 s  drei\n"
        "   0.84 s       $\n"
        "   1.60 s  (end of speech)\n"
        "   1.60 s         5\n"
        "   1.60 s  und\n"
    )  # fmt: skip


def test_characters_have_no_gaps(write_log):
    log = write_log({"prediction": "你好吗", "delays": [100, 200, 300], "elapsed": []})
    lines = transcript(read_instances(log, "char")[0]).splitlines()
    assert [line[11:] for line in lines] == ["你", " 好", "  吗", "(end of speech)"]


def test_an_empty_translation_shows_only_the_end(write_log):
    (instance,) = read_instances(write_log({"prediction": "", "delays": [], "elapsed": []}))
    assert transcript(instance) == "   1.60 s  (end of speech)\n"


def test_times_that_were_not_measured_are_refused(write_log):
    (instance,) = read_instances(write_log({"elapsed": []}))
    with pytest.raises(ValueError, match="sentence 0 has no elapsed times"):
        transcript(instance, computation_aware=True)


@given(
    words=st.lists(st.tuples(st.text("ab", min_size=1, max_size=30), st.integers(0, 9)), max_size=30),
    width=st.integers(12, 60),
)
def test_no_word_is_lost_and_lines_keep_the_width(words, width):
    words = [(word, 100.0 * time) for word, time in sorted(words, key=lambda pair: pair[1])]
    units, delays = (tuple(column) for column in zip(*words, strict=True)) if words else ((), ())
    text = " ".join(units)
    lines = transcript(Instance(0, units, delays, (), text, "x", 1, 900.0), width=width).splitlines()
    spoken = [line for line in lines if "(end" not in line]
    assert " ".join(line[11:].strip() for line in spoken).split() == list(units)
    assert all(len(line) <= width or len(line[11:].split()) == 1 for line in spoken)
    assert len(lines) == len(spoken) + 1
    assert [float(line[:7]) for line in lines] == sorted(float(line[:7]) for line in lines)
