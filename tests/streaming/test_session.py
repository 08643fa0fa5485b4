"""Invariant 2 in sessions: any cutting gives the same words, and no word depends on audio that had not come."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mla_fairseq.streaming import MonotonicPolicy, Policy, Session, WaitKPolicy, WholeSourcePolicy
from mla_fairseq.streaming.words import join
from tests.streaming.conftest import RATE, noise

MIXES = {
    "softmax": "",
    "relu": "--attn-type relu",
    "elu": "--attn-type elu",
    "cosformer": "--attn-type cosformer",
    "cosformer-but-cross": "--attn-type cosformer --cross-attn-type softmax",
    "window": "--encoder-left-chunks 1",
}
MONOTONIC = {
    "hard_aligned": "--simul-type hard_aligned",
    "infinite_lookback-relu": "--simul-type infinite_lookback --cross-attn-type relu",
    "chunkwise": "--simul-type chunkwise --mocha-chunk-size 4",
    "hard_aligned-steps": "--simul-type hard_aligned_fixed_pre_decision",
    "infinite_lookback-steps": "--simul-type infinite_lookback_fixed_pre_decision --no-mass-preservation",
    "infinite_lookback-steps-cosformer": "--simul-type infinite_lookback_fixed_pre_decision --attn-type cosformer",
    "chunkwise-steps-relu": "--simul-type chunkwise_fixed_pre_decision --attn-type relu",
}
MIXES |= MONOTONIC
every_mix = pytest.mark.parametrize("flags", MIXES.values(), ids=MIXES)
every_arch = pytest.mark.parametrize("arch", ["s2t_transformer_simul_mla", "convtransformer_simul_mla"])


def say(session: Session, samples: np.ndarray, cuts: list[int]) -> list[tuple[str, int]]:
    """Every word with the encoder states that were there when it went out."""
    writes, start = [], 0
    for size in cuts:
        writes += session.push(samples[start : start + size])
        start += size
    writes += session.push(samples[start:], final=True)
    return [(word, write.heard) for write in writes for word in write.text.split()]


def policy_of(flags: str, lagging: int) -> Policy:
    return MonotonicPolicy() if "--simul-type" in flags else WaitKPolicy(lagging, 3)


def words(said: list[tuple[str, int]]) -> list[str]:
    return [word for word, _ in said]


@every_arch
@every_mix
@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
@given(cuts=st.lists(st.integers(0, 12_000), max_size=6), beam=st.sampled_from([1, 3]))
def test_any_cutting_gives_the_same_words(translator, arch: str, flags: str, cuts: list[int], beam: int) -> None:
    samples, policy = noise(2.3, 3), policy_of(flags, 2)
    model = translator(flags, arch)
    expected = say(Session(model, policy, beam), samples, [])
    assert words(say(Session(model, policy, beam), samples, cuts)) == words(expected)
    assert len(expected) > 1


@every_mix
@pytest.mark.parametrize("beam", [1, 3])
def test_no_word_depends_on_audio_that_had_not_come(translator, flags: str, beam: int) -> None:
    model, policy = translator(flags), policy_of(flags, 1)
    samples = noise(3.0, 3)
    for cut in (RATE // 2, RATE, 2 * RATE):
        changed = samples.copy()
        changed[cut:] = noise(3.0, 99)[cut:]
        before, after = (Session(model, policy, beam).push(x[:cut]) for x in (samples, changed))
        assert before == after
        whole = [say(Session(model, policy, beam), x, [cut]) for x in (samples, changed)]
        early = [word for write in before for word in write.text.split()]
        for said in whole:
            assert words(said)[: len(early)] == early
    others = {tuple(words(say(Session(model, policy, beam), noise(3.0, seed), []))) for seed in range(4, 12)}
    assert len(others) > 1  # or the model would not have listened at all


@every_mix
def test_streaming_starts_before_the_end(translator, flags: str) -> None:
    session, samples = Session(translator(flags), policy_of(flags, 1)), noise(3.0, 3)
    assert any(session.push(piece) for piece in np.array_split(samples, 20))


@every_mix
@pytest.mark.parametrize("beam", [1, 3])
def test_a_snapshot_can_be_returned_to(translator, flags: str, beam: int) -> None:
    session, samples = Session(translator(flags), policy_of(flags, 1), beam), noise(3.0, 3)
    session.push(samples[:20_000])
    snapshot = session.snapshot()
    expected = session.push(samples[20_000:], final=True)
    for _ in range(2):
        session.restore(snapshot)
        session.push(noise(0.5, 8))  # a way that is given up
        session.restore(snapshot)
        assert session.push(samples[20_000:], final=True) == expected
    assert snapshot.push(samples[20_000:], final=True) == expected


def test_a_sentence_that_has_ended_costs_nothing_more(translator) -> None:
    """Of what comes then nothing is encoded or kept, but a fault of the samples is still told."""
    session = Session(translator(), policy_of("", 1), max_len_a=0, max_len_b=2)
    session.push(noise(3.0, 3))
    assert session.search.ended
    before = session.nbytes
    with patch.object(session.stream.translator.model.encoder, "stream", side_effect=AssertionError):
        session.push(noise(5.0, 4))
        assert session.nbytes <= before < 10_000
        with pytest.raises(ValueError, match="channel"):
            session.push(np.zeros((100, 2), np.float32))
        assert session.finish() == []
    with pytest.raises(RuntimeError, match="begin a new stream or session"):
        session.push([0.0])


def test_a_policy_for_another_kind_of_model_is_refused(translator) -> None:
    with pytest.raises(ValueError, match="no monotonic attention: give the session a WaitKPolicy"):
        Session(translator(), MonotonicPolicy())
    with pytest.raises(ValueError, match="whose heads decide: give the session a MonotonicPolicy"):
        Session(translator("--simul-type infinite_lookback"), WaitKPolicy(3, 7))


def test_nobody_reads_the_sign_of_a_beginning() -> None:
    assert join(["\u2581ein", "<s>", "\u2581haus"]) == "ein haus"


def test_the_whole_source_policy_waits(translator) -> None:
    session, samples = Session(translator(), WholeSourcePolicy()), noise(2.0, 3)
    assert session.push(samples) == []
    assert session.finish()[0].text


def test_a_beam_finds_what_is_at_least_as_likely(translator) -> None:
    """In the tail, where nothing has gone out, beam search is fairseq's; greedy cannot beat it but by luck."""
    model, scores = translator("--attn-type relu"), {}
    for beam in (1, 4):
        total = 0.0
        for seed in range(6):
            session = Session(model, WholeSourcePolicy(), beam)
            session.push(noise(1.5, seed), final=True)
            total += max(score for score, _ in session.search.finished)
        scores[beam] = total
    assert scores[4] > scores[1]


@pytest.mark.parametrize("flags", [MIXES["cosformer"], MIXES["relu"]])
def test_a_continuous_session_goes_on_in_constant_memory(translator, flags: str) -> None:
    session = Session(translator(flags), policy_of(flags, 1), max_len_a=0, max_len_b=10, continuous=True)
    sizes, sentences = [], 0
    for second in range(40):
        writes = session.push(noise(1.0, second))
        sentences += sum(write.sentence_ended for write in writes)
        sizes.append(session.nbytes)
    assert sentences > 1
    assert max(sizes[20:]) <= 1.2 * max(sizes[5:20])


@pytest.mark.parametrize("flags", [MIXES["relu"], MIXES["infinite_lookback-relu"]])
@pytest.mark.parametrize("beam", [1, 3])
def test_a_continuous_session_counts_from_the_beginning(translator, flags: str, beam: int) -> None:
    """With the limits that count frames: sentences go on as long as the recording does, and say when."""
    session = Session(translator(flags), policy_of(flags, 1), beam, max_len_a=0.02, max_len_b=4, continuous=True)
    writes, lengths = [], []
    for second in range(30):
        writes += session.push(noise(1.0, second))
        lengths.append(session.stream.before + session.stream.heard)
    writes += session.finish()
    heard = [write.heard for write in writes]
    assert heard == sorted(heard)
    assert sum(write.sentence_ended for write in writes) > 2
    assert heard[-1] > lengths[-2]


@pytest.mark.parametrize("limits", [(0, 0), (-0.1, 20), (0.1, -1)])
def test_limits_without_room_are_refused(translator, limits: tuple) -> None:
    with pytest.raises(ValueError, match="--max-len-a and --max-len-b must be at least 0"):
        Session(translator(), WaitKPolicy(1, 3), max_len_a=limits[0], max_len_b=limits[1])


def test_what_is_no_speech_is_refused_and_changes_nothing(translator) -> None:
    session, samples = Session(translator(), WaitKPolicy(1, 3)), noise(2.0, 3)
    twin = Session(translator(), WaitKPolicy(1, 3))
    for bad, message in ((np.zeros((10, 2), np.float32), "one channel"), (np.full(10, np.nan, np.float32), "nan")):
        with pytest.raises(ValueError, match=message):
            session.push(bad)
    assert session.push(samples, final=True) == twin.push(samples, final=True)
    with pytest.raises(RuntimeError, match="the recording has ended"):
        session.push(samples)
    with pytest.raises(ValueError, match="the beam must be at least 1, but is 0"):
        Session(translator(), WaitKPolicy(1, 3), beam=0)


@pytest.mark.parametrize("samples", [0, 10, 399, 400, 700])
def test_hardly_any_audio_is_no_accident(translator, samples: int) -> None:
    session = Session(translator(), WaitKPolicy(1, 3))
    writes = session.push(noise(0.1)[:samples]) + session.finish()
    assert bool(writes) == (samples >= 400)
