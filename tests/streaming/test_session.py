"""Sessions: words depend neither on how the audio is split into segments, nor on audio that has not arrived."""

import functools
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mla_fairseq.streaming import (
    AlignAttPolicy,
    Decision,
    Emission,
    HoldPolicy,
    IncrementalSession,
    MonotonicPolicy,
    OfflineSession,
    Policy,
    Progress,
    SearchOptions,
    Session,
    Translator,
    WaitKPolicy,
    WholeSourcePolicy,
)
from mla_fairseq.streaming.policies import READ
from mla_fairseq.streaming.words import join
from tests.streaming.conftest import ARCH, RATE, noise

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
# the architectures differ in their subsampling or in their layers alone, so few mixes are enough for the others
ARCHS = {f"s2t-{name}": (ARCH, flags) for name, flags in MIXES.items()}
ARCHS |= {f"conv-{name}": ("convtransformer_simul_mla", MIXES[name]) for name in ("softmax", "cosformer", "chunkwise")}
ARCHS |= {f"conformer-{name}": ("s2t_conformer_simul_mla", MIXES[name]) for name in ("softmax", "cosformer")}
every_arch = pytest.mark.parametrize(("arch", "flags"), ARCHS.values(), ids=ARCHS)


def emissions(session: Session, samples: np.ndarray, cuts: list[int]) -> list[Emission]:
    """Translate ``samples`` in chunks of the sizes ``cuts`` and a last chunk of the rest."""
    found, start = [], 0
    for size in cuts:
        found += session.push(samples[start : start + size])
        start += size
    return found + session.push(samples[start:], final=True)


def words(found: list[Emission]) -> list[str]:
    return [word for emission in found for word in emission.text.split()]


def policy_of(flags: str, lagging: int) -> Policy:
    return MonotonicPolicy() if "--simul-type" in flags else WaitKPolicy(lagging, 3)


def options_of(flags: str, beam: int) -> SearchOptions:
    """Return short sentences under wait-k, where the limit cuts only what follows the end of the source."""
    return SearchOptions(beam, max_len_b=20 if "--simul-type" in flags else 8)


def at_once(model: Translator, policy: Policy, options: SearchOptions, samples: np.ndarray) -> list[str]:
    """Return the words of a recording that is pushed as one segment."""
    return words(IncrementalSession(model, policy, options).push(samples, final=True))


expected_words = functools.cache(lambda *arguments: at_once(*arguments, noise(2.3, 3)))


@every_arch
@settings(max_examples=5, phases=[Phase.explicit, Phase.generate])
@given(cuts=st.lists(st.integers(0, 12_000), min_size=1, max_size=6), beam=st.sampled_from([1, 3]))
def test_words_do_not_depend_on_segments(translator, arch: str, flags: str, cuts: list[int], beam: int) -> None:
    model, policy, options = translator(flags, arch), policy_of(flags, 2), options_of(flags, beam)
    expected = expected_words(model, policy, options)
    assert words(emissions(IncrementalSession(model, policy, options), noise(2.3, 3), cuts)) == expected
    assert len(expected) > 1


def check_causality(model: Translator, policy: Policy, options: SearchOptions = SearchOptions()) -> None:  # noqa: B008
    """Assert that words emitted before a time stay the same when the audio after it changes.

    The other recordings are pushed at once: encoder and policy have the future at hand, and must not use it.
    """
    for recording in (3, 4):
        session, samples, early = IncrementalSession(model, policy, options), noise(3.0, recording), []
        whole = at_once(model, policy, options, samples)
        for cut in (RATE, 2 * RATE):
            early += words(session.push(samples[cut - RATE : cut]))
            changed = np.concatenate((samples[:cut], noise(3.0, 99)[cut:]))
            found = words(IncrementalSession(model, policy, options).push(changed))
            for later in (found, whole):
                assert later[: len(early)] == early, f"the audio after {cut / RATE} s changed what was emitted before"
        assert early, "a session that emits nothing early proves nothing"


@every_mix
@pytest.mark.parametrize("beam", [1, 3])
def test_no_word_depends_on_future_audio(translator, flags: str, beam: int) -> None:
    check_causality(translator(flags), policy_of(flags, 1), options_of(flags, beam))


@every_mix
def test_words_depend_on_the_audio(translator, flags: str) -> None:
    """Otherwise these models could not show that words do not depend on future audio."""
    model, policy, options = translator(flags), policy_of(flags, 1), options_of(flags, 1)
    outputs = (at_once(model, policy, options, noise(3.0, seed)) for seed in range(3, 12))
    first = next(outputs)
    assert any(output != first for output in outputs)


class LookAheadPolicy(WaitKPolicy):
    """Broken on purpose: a token that may be decoded reads all states available, not those that wait-k allows."""

    def decide(self, progress: Progress) -> Decision:
        return Decision(progress.available) if super().decide(progress).states else READ


def test_a_policy_that_looks_ahead_is_detected(translator) -> None:
    with pytest.raises(AssertionError, match="changed what was emitted before"):
        check_causality(translator(), LookAheadPolicy(1, 3))


@pytest.mark.parametrize("flags", [MIXES["softmax"], MIXES["cosformer"]])
def test_an_encoder_that_looks_ahead_is_detected(translator, flags: str) -> None:
    model = translator(flags)
    stream = model.model.encoder.stream

    def look_ahead(*arguments) -> torch.Tensor:
        """Broken on purpose: the last audio of a push comes first."""
        return stream(*arguments).flip(0)

    with patch.object(model.model.encoder, "stream", look_ahead), pytest.raises(AssertionError, match="changed what"):
        check_causality(model, WaitKPolicy(1, 3))


@every_mix
def test_words_are_emitted_before_the_source_ends(translator, flags: str) -> None:
    session, samples = IncrementalSession(translator(flags), policy_of(flags, 1)), noise(3.0, 3)
    assert any(session.push(chunk) for chunk in np.array_split(samples, 20))


@every_mix
@pytest.mark.parametrize("beam", [1, 3])
def test_a_snapshot_restores_exactly(translator, flags: str, beam: int) -> None:
    session = IncrementalSession(translator(flags), policy_of(flags, 1), options_of(flags, beam))
    samples = noise(2.3, 3)
    session.push(samples[:20_000])
    snapshot = session.snapshot()
    expected = session.push(samples[20_000:], final=True)
    for _ in range(2):
        session.restore(snapshot)
        session.push(noise(0.5, 8))  # another continuation, which restore undoes
        session.restore(snapshot)
        assert session.push(samples[20_000:], final=True) == expected
    assert snapshot.push(samples[20_000:], final=True) == expected


def test_a_finished_sentence_costs_nothing_more(translator) -> None:
    """Audio after it is checked, but neither encoded nor kept."""
    session = IncrementalSession(translator(), policy_of("", 1), SearchOptions(max_len_a=0, max_len_b=2))
    session.push(noise(3.0, 3))
    assert session.search.ended
    before = session.nbytes
    with patch.object(session.translator.model.encoder, "stream", side_effect=AssertionError):
        session.push(noise(5.0, 4))
        assert session.nbytes <= before < 10_000
        with pytest.raises(ValueError, match="channel"):
            session.push(np.zeros((100, 2), np.float32))
        assert session.finish() == []
    with pytest.raises(RuntimeError, match="start a new stream or session"):
        session.push([0.0])


def test_a_policy_for_another_type_of_model_is_refused(translator) -> None:
    with pytest.raises(ValueError, match=r"has no monotonic attention \(MonotonicPolicy\(\)\): use WaitKPolicy"):
        IncrementalSession(translator(), MonotonicPolicy())
    with pytest.raises(ValueError, match=r"has monotonic attention .* use MonotonicPolicy"):
        IncrementalSession(translator("--simul-type infinite_lookback"), WaitKPolicy(3, 7))


def test_wait_k_has_the_ratio_of_the_model(translator) -> None:
    assert IncrementalSession(translator(), WaitKPolicy(2)).policy == WaitKPolicy(2, 3)
    with pytest.raises(ValueError, match="ratio of the policy is 7, but the model was trained with 3"):
        IncrementalSession(translator(), WaitKPolicy(2, 7))


class NoPolicy:
    """Has the method and the attribute of a policy, but not the base class."""

    monotonic = None

    def decide(self, progress: Progress) -> Decision:
        return READ


@pytest.mark.parametrize(
    "session, policy, base",
    [
        (IncrementalSession, HoldPolicy(4), "Policy"),
        (IncrementalSession, NoPolicy(), "Policy"),
        (IncrementalSession, WaitKPolicy, "Policy"),
        (OfflineSession, WaitKPolicy(2, 3), "OfflinePolicy"),
        (OfflineSession, None, "OfflinePolicy"),
    ],
)
def test_a_policy_for_another_session_is_refused(translator, session: type[Session], policy, base: str) -> None:
    message = f"{session.__name__} does not follow this policy .*: use an instance of a subclass of {base}$"
    with pytest.raises(ValueError, match=message):
        session(translator(), policy)


def test_snapshots_and_options_that_do_not_fit_are_refused(translator) -> None:
    session, other = IncrementalSession(translator(), WaitKPolicy(2, 3)), OfflineSession(translator(), HoldPolicy(2))
    with pytest.raises(ValueError, match=r"not a snapshot of IncrementalSession \(OfflineSession\)"):
        session.restore(other.snapshot())
    another = IncrementalSession(translator("--attn-type relu"), WaitKPolicy(2, 3))
    with pytest.raises(ValueError, match="the snapshot is of a session with another translator: use one of this"):
        session.restore(another.snapshot())
    assert session.translator is translator()
    for arguments in (WaitKPolicy(1, 3), SearchOptions()), (WaitKPolicy(2, 3), SearchOptions(3)):
        with pytest.raises(ValueError, match=r"the snapshot is of a session with another (policy|options): use one of"):
            session.restore(IncrementalSession(translator(), *arguments).snapshot())
    attending = OfflineSession(translator(), AlignAttPolicy(2), layer=0)
    with pytest.raises(ValueError, match="another layer"):
        attending.restore(OfflineSession(translator(), AlignAttPolicy(2), layer=1).snapshot())
    with pytest.raises(ValueError, match=r"not SearchOptions \(4\): use SearchOptions\(beam=N\)"):
        IncrementalSession(translator(), WaitKPolicy(2, 3), 4)


@pytest.mark.parametrize("final", [False, True])
def test_samples_after_the_end_are_refused(translator, final: bool) -> None:
    for session in IncrementalSession(translator(), WaitKPolicy(2, 3)), OfflineSession(translator(), HoldPolicy(2)):
        session.push(noise(0.5), final=True)
        with pytest.raises(RuntimeError, match="the recording has ended"):
            session.push(noise(0.5), final)


class ScriptedPolicy(Policy):
    """Decides by a function."""

    def __init__(self, answer: Callable[[Progress], Decision]) -> None:
        self.answer = answer

    def decide(self, progress: Progress) -> Decision:
        return self.answer(progress)


@pytest.mark.parametrize(
    "answer, message",
    [
        (lambda progress: 3, r"something other than a Decision \(3\)"),
        (lambda progress: None, r"something other than a Decision \(None\)"),
        (lambda progress: Decision(progress.available + 1), r"not available, or fewer .* use 0 to \d+, or READ"),
        (lambda progress: Decision(6 - progress.tokens), r"fewer than were read before \(5\): use 6 to \d+, or READ"),
    ],
    ids=["number", "nothing", "too far", "back"],
)
def test_a_decision_that_is_not_possible_is_refused(translator, answer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IncrementalSession(translator(), ScriptedPolicy(answer)).push(noise(2.0, 3))


@pytest.mark.parametrize("beam", [1, 3])
def test_a_policy_need_not_know_that_the_source_ends(translator, beam: int) -> None:
    """READ until then gives the offline translation, whatever was emitted before."""
    samples, options = noise(2.0, 3), SearchOptions(beam)
    never = IncrementalSession(translator(), ScriptedPolicy(lambda progress: READ), options)
    assert never.push(samples) == []
    (emission,) = never.finish()
    assert emission.sentence_ended
    assert emission.text

    first = ScriptedPolicy(lambda progress: Decision(9) if progress.tokens < 6 and progress.available >= 9 else READ)
    session = IncrementalSession(translator(), first, options)
    assert (early := session.push(samples)), "a session that emits nothing early proves nothing"
    assert [emission.sentence_ended for emission in early + session.finish()][-1]


def test_the_symbol_of_a_beginning_is_not_shown() -> None:
    assert join(["\u2581ein", "<s>", "\u2581haus"]) == "ein haus"


def test_the_whole_source_policy_waits(translator) -> None:
    session, samples = IncrementalSession(translator(), WholeSourcePolicy()), noise(2.0, 3)
    assert session.push(samples) == []
    assert session.finish()[0].text


def test_a_beam_finds_likelier_sentences(translator) -> None:
    """After the end of the source, beam search is fairseq's; greedy search can win only by luck."""
    model, scores = translator("--attn-type relu"), {}
    for beam in (1, 4):
        total = 0.0
        for seed in range(6):
            session = IncrementalSession(model, WholeSourcePolicy(), SearchOptions(beam))
            session.push(noise(1.5, seed), final=True)
            total += max(score for score, _ in session.search.finished)
        scores[beam] = total
    assert scores[4] > scores[1]


@pytest.mark.parametrize("limits", [(0, 0), (-0.1, 20), (0.1, -1), (float("nan"), 20), (0.1, float("inf")), ("1", 2)])
def test_limits_that_allow_no_token_are_refused(limits: tuple) -> None:
    with pytest.raises(
        ValueError, match=r"max_len_a and max_len_b \(--max-len-a, --max-len-b\) must be finite and at least 0"
    ):
        SearchOptions(max_len_a=limits[0], max_len_b=limits[1])


@pytest.mark.parametrize("beam", [0, 2.5, None])
def test_a_beam_that_is_not_a_positive_integer_is_refused(beam) -> None:
    with pytest.raises(ValueError, match=f"the beam must be an integer of at least 1, but is {beam}"):
        SearchOptions(beam=beam)
    with pytest.raises(ValueError, match=r"^lenpen \(--lenpen\) must be a finite number, but is nan"):
        SearchOptions(lenpen=float("nan"))


def test_bad_samples_are_refused_and_change_nothing(translator) -> None:
    session, samples = IncrementalSession(translator(), WaitKPolicy(1, 3)), noise(2.0, 3)
    twin = IncrementalSession(translator(), WaitKPolicy(1, 3))
    for bad, message in ((np.zeros((10, 2), np.float32), "one channel"), (np.full(10, np.nan, np.float32), "nan")):
        with pytest.raises(ValueError, match=message):
            session.push(bad)
    assert session.push(samples, final=True) == twin.push(samples, final=True)
    with pytest.raises(RuntimeError, match="the recording has ended"):
        session.push(samples)


@pytest.mark.parametrize("samples", [0, 10, 399, 400, 700])
def test_very_short_audio_is_translated(translator, samples: int) -> None:
    session = IncrementalSession(translator(), WaitKPolicy(1, 3))
    found = session.push(noise(0.1)[:samples]) + session.finish()
    assert bool(found) == (samples >= 400)
