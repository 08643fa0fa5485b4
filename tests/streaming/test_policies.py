"""Policies, words and delays: plain numbers in, plain numbers out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_fairseq.speech.samples import num_frames
from mla_fairseq.speech.subsample import frames_before
from mla_fairseq.streaming.delays import Clock, milliseconds, word_delays
from mla_fairseq.streaming.policies import READ, Decision, Progress, WaitKPolicy, WholeSourcePolicy
from mla_fairseq.streaming.words import join, whole, words

PIECES = st.lists(st.sampled_from(["▁", "▁a", "▁bc", "d", "e", "<unk>"]), max_size=12)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 30), st.integers(0, 400))
def test_wait_k_reads_what_the_formula_says(k: int, ratio: int, t: int, available: int) -> None:
    decision, required = WaitKPolicy(k, ratio).decide(Progress(available, t)), ratio * (k + t)
    assert decision == (Decision(required) if available >= required else READ)


def test_the_whole_source_is_awaited() -> None:
    assert WholeSourcePolicy().decide(Progress(30, 0)) == READ


@pytest.mark.parametrize("numbers", [(0, 7), (3, 0), (-1, -1), (2.5, 7), (3, "7"), (0, None)])
def test_wait_k_needs_positive_integers(numbers: tuple) -> None:
    with pytest.raises(ValueError, match=r"must be (integers|an integer) of at least 1, but"):
        WaitKPolicy(*numbers)


def test_the_ratio_of_wait_k_is_that_of_the_model() -> None:
    assert WaitKPolicy(5).for_model(7) == WaitKPolicy(5, 7).for_model(7) == WaitKPolicy(5, 7)
    assert WaitKPolicy(5, 3).for_model(None) == WaitKPolicy(5, 3)
    with pytest.raises(ValueError, match=r"policy is 3, but the model was trained with 7: .*WaitKPolicy\(5\)"):
        WaitKPolicy(5, 3).for_model(7)
    with pytest.raises(ValueError, match=r"was not trained with wait-k: give WaitKPolicy\(5, ratio=N\)"):
        WaitKPolicy(5).for_model(None)
    with pytest.raises(ValueError, match="has no pre-decision ratio"):
        WaitKPolicy(5).required(0)


@pytest.mark.parametrize("states", [-1, 2.0, True, None, "3"])
def test_a_decision_is_a_number_of_states(states) -> None:
    with pytest.raises(ValueError, match=f"must be an integer of at least 0, but is {states!r}"):
        Decision(states)


@given(PIECES)
def test_words_make_up_the_text(pieces: list[str]) -> None:
    found = list(words(pieces))
    assert " ".join(text for text, _ in found).split() == join(pieces).split()
    assert [place for _, place in found] == sorted({place for _, place in found})
    assert all(place == len(pieces) or pieces[place].startswith("▁") for _, place in found)


@given(PIECES, PIECES)
def test_a_whole_word_is_never_changed_by_what_follows(pieces: list[str], more: list[str]) -> None:
    early = join(pieces[: whole(pieces)]).split()
    assert join([*pieces, *more]).split()[: len(early)] == early


def test_the_last_word_is_not_whole() -> None:
    assert whole(["▁Das", "▁Ha", "us"]) == 1
    assert whole(["▁Das"]) == whole([]) == 0
    assert list(words(["▁Das", "▁Ha", "us"])) == [("Das", 1), ("Haus", 3)]


@given(st.integers(1, 3000))
def test_milliseconds_are_the_shortest_audio_with_so_many_frames(frames: int) -> None:
    samples = round(milliseconds(frames) * 16)
    assert num_frames(samples) == frames
    assert num_frames(samples - 1) == frames - 1


@given(st.integers(1, 200), st.integers(1, 600), st.integers(1, 16), st.sampled_from([1, 40, 280, 1000]))
def test_states_arrive_with_their_chunk_at_the_end_of_a_segment(
    states: int, frames: int, chunk: int, segment: int
) -> None:
    clock = Clock(chunk, lambda n: frames_before([5, 5], n), segment)
    arrival, length = clock.arrival(states, frames), milliseconds(frames)
    assert arrival == length or arrival % segment == 0
    assert arrival <= length
    complete = -(-states // chunk) * chunk
    if arrival < length:
        assert milliseconds(frames_before([5, 5], complete)) <= arrival
        assert arrival - segment < milliseconds(frames_before([5, 5], complete))


def test_delays_of_a_translation() -> None:
    """k = 1, 7 states at once: token t reads 7 (t + 1) states of 40 ms, which need 45 ms more of audio."""
    clock = Clock(7, lambda n: frames_before([5, 5], n), 40)
    texts, delays = word_delays(["▁Das", "▁Ha", "us", "▁steht"], 200, WaitKPolicy(1, 7).required, clock)
    assert texts == ["Das", "Haus", "steht"]
    assert delays == [640, 1200, 1480]  # 605, 1165 and 1445, in steps of 40: the words are whole with tokens 1, 3 and 4
    assert word_delays(["▁Das"], 40, WaitKPolicy(1, 7).required, clock)[1] == [milliseconds(40)]
