"""Offline models that emit early: policies as plain functions, and emitted words never change."""

import numpy as np
import pytest
import torch

from mla_fairseq.streaming import (
    AlignAttPolicy,
    EDAttPolicy,
    Emission,
    HoldPolicy,
    IncrementalSession,
    LocalAgreementPolicy,
    OfflineSession,
    OfflineWaitKPolicy,
    SearchOptions,
    Session,
    WholeSourcePolicy,
)
from tests.streaming.conftest import noise

MODELS = {
    "whole": "--encoder-chunk-size 0",
    "whole-relu": "--encoder-chunk-size 0 --attn-type relu",
    "chunked": "",
    "chunked-cosformer": "--attn-type cosformer",
}
POLICIES = {
    "alignatt": AlignAttPolicy(4),
    "edatt": EDAttPolicy(0.3, 3),
    "agreement": LocalAgreementPolicy(2),
    "hold": HoldPolicy(3),
    "wait-k": OfflineWaitKPolicy(2, 3),
}
every_model = pytest.mark.parametrize("flags", MODELS.values(), ids=MODELS)
every_policy = pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)


def push_all(session: Session, samples: np.ndarray, segments: int) -> list[Emission]:
    return [emission for segment in np.array_split(samples, segments) for emission in session.push(segment)]


def translate(session: Session, samples: np.ndarray, segments: int = 8) -> list[Emission]:
    return push_all(session, samples, segments) + session.finish()


def words(found: list[Emission]) -> list[str]:
    return [word for emission in found for word in emission.text.split()]


@every_model
@every_policy
@pytest.mark.parametrize("beam", [1, 3])
def test_no_later_audio_changes_what_was_emitted(translator, flags: str, policy, beam: int) -> None:
    session = OfflineSession(translator(flags), policy, SearchOptions(beam, max_len_b=8))
    early, committed = push_all(session, noise(1.0, 3), 4), list(session.committed)
    for seconds, seed in ((1.3, 97), (1.3, 98), (0.4, 99)):
        future = session.snapshot()
        found = early + translate(future, noise(seconds, seed), 4)
        assert future.committed[: len(committed)] == committed
        text = future.translator.text(future.committed)
        assert "".join(words(found)) == "".join(text.split()), "each committed token is emitted once"


@every_model
def test_sessions_of_a_model_are_independent(translator, flags: str) -> None:
    policy, segments = LocalAgreementPolicy(2), np.array_split(noise(2.3, 3), 8)
    session, other = (OfflineSession(translator(flags), policy) for _ in range(2))
    found = []
    for segment in segments:
        found += session.push(segment)
        other.push(segment[::-1].copy())
    assert found == push_all(OfflineSession(translator(flags), policy), noise(2.3, 3), 8) != []


@every_model
def test_policies_emit_before_the_source_ends(translator, flags: str) -> None:
    """Not each policy on each random model, but several on each model."""
    early = 0
    for policy in POLICIES.values():
        found = translate(OfflineSession(translator(flags), policy), noise(2.3, 3))
        assert found
        early += found[0].states < found[-1].states
    assert early > 1


@pytest.mark.parametrize("flags", [MODELS["chunked"], MODELS["chunked-cosformer"]])
@pytest.mark.parametrize("beam", [1, 3])
def test_a_policy_that_waits_for_the_end_gives_the_offline_translation(translator, flags: str, beam: int) -> None:
    samples = noise(2.3, 3)
    waiting = OfflineSession(translator(flags), AlignAttPolicy(10_000), SearchOptions(beam))
    whole = IncrementalSession(translator(flags), WholeSourcePolicy(), SearchOptions(beam))
    assert words(translate(waiting, samples)) == words(translate(whole, samples))


@every_model
def test_weights_of_a_step_are_those_of_the_whole_target(translator, flags: str) -> None:
    model = translator(flags)
    session = OfflineSession(model, AlignAttPolicy(4), layer=0)
    session.push(noise(2.3, 3))
    decoding, tokens, found = model.redecode(session.source.states, [], 0, session.heads), [5, 7, 6, 9], []
    eos = model.dictionary.eos()
    for token in [eos, *tokens]:
        found.append(decoding.attend(token)[1])
    encoder_out = {"encoder_out": [session.source.states], "encoder_padding_mask": []}
    encoder_out["for_decoder"] = {"waitk_lagging": None}
    rule = model.model.decoder.length_rule
    lengths = None if rule is None else rule(torch.tensor([session.source.available]))
    with torch.no_grad():
        given = torch.tensor([[eos, *tokens]])
        _, extra = model.model.decoder(given, encoder_out, alignment_layer=0, target_lengths=lengths)
    torch.testing.assert_close(torch.tensor(found), extra["attn"][0][0], rtol=0, atol=1e-5)


def test_policies_are_plain_functions() -> None:
    assert LocalAgreementPolicy(2).stable_prefix([[1, 2, 3]], 9) == 0
    assert LocalAgreementPolicy(2).stable_prefix([[1, 2, 3], [1, 2, 4, 5]], 9) == 2
    assert LocalAgreementPolicy(3).stable_prefix([[1, 2], [1, 2, 3], [1, 2, 4]], 9) == 2
    assert HoldPolicy(2).stable_prefix([[1, 2, 3]], 9) == 1
    assert HoldPolicy(5).stable_prefix([[1, 2, 3]], 9) == 0
    assert not OfflineWaitKPolicy(2, 7).stops(1, [], 21)
    assert OfflineWaitKPolicy(2, 7).stops(2, [], 21)
    assert OfflineWaitKPolicy(2, 7).stable_prefix([list(range(9))], 21) == 2, "the same rule cuts a beam"
    assert OfflineWaitKPolicy(9, 7).stable_prefix([list(range(9))], 21) == 0


@pytest.mark.parametrize("beam", [1, 3])
def test_wait_k_waits_for_every_beam(translator, beam: int) -> None:
    lagging, ratio = 5, 3
    samples, tokens = noise(2.3, 3), 0
    session = OfflineSession(translator(), OfflineWaitKPolicy(lagging, ratio), SearchOptions(beam))
    for start in range(0, len(samples), 2000):
        session.push(samples[start : start + 2000])
        tokens = len(session.committed)
        assert tokens == 0 or session.source.available >= ratio * (lagging + tokens - 1)
    assert tokens > 0, "a session that emits nothing early proves nothing"


@every_model
def test_a_snapshot_restores_exactly(translator, flags: str) -> None:
    samples = noise(2.3, 3)
    for policy in POLICIES.values():
        session = OfflineSession(translator(flags), policy, SearchOptions(max_len_b=8))
        session.push(samples[:20_000])
        snapshot = session.snapshot()
        expected = session.push(samples[20_000:], final=True)
        for _ in range(2):
            session.restore(snapshot)
            session.push(noise(0.5, 8))  # another continuation, which restore undoes
            session.restore(snapshot)
            assert session.push(samples[20_000:], final=True) == expected


def test_a_full_context_encoder_is_logged_once(translator, caplog: pytest.LogCaptureFixture) -> None:
    model = translator(MODELS["whole"])
    model._logged.clear()
    with caplog.at_level("INFO", "mla_fairseq"):
        for _ in range(3):
            OfflineSession(model, AlignAttPolicy(4))
    assert caplog.text.count("each segment encodes all audio again") == 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: AlignAttPolicy(-1), "--frame-num must be an integer of at least 0, but is -1"),
        (lambda: AlignAttPolicy(2.5), "--frame-num must be an integer of at least 0, but is 2.5"),
        (lambda: EDAttPolicy(-0.1), "--attn-threshold must be at least 0 and .* they are -0.1"),
        (lambda: EDAttPolicy(float("nan")), "--attn-threshold must be at least 0 and .* they are nan"),
        (lambda: EDAttPolicy(0.2, 1.5), "--frame-num an integer of at least 1, .* and 1.5"),
        (lambda: LocalAgreementPolicy(1), "--agreeing must be an integer of at least 2"),
        (lambda: HoldPolicy(-1), "--hold must be an integer of at least 0, but is -1"),
        (lambda: HoldPolicy("3"), "--hold must be an integer of at least 0, but is '3'"),
        (lambda: OfflineWaitKPolicy(0, 7), "at least 1, but are 0 and 7"),
    ],
)
def test_bad_options_of_a_policy_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_options_of_a_session_are_refused(translator) -> None:
    policy = AlignAttPolicy(4)
    for options, message in (
        ({"layer": 2}, "^layer must be an integer within 0 and 1, but is 2"),
        ({"layer": 1.0}, "^layer must be an integer within 0 and 1, but is 1.0"),
        ({"layer": True}, "^layer must be an integer within 0 and 1, but is True"),
        ({"heads": [0, 2]}, r"^heads must be a list of integers within 0 and 1, but is \[0, 2\]"),
        ({"heads": [1.0]}, r"^heads must be a list of integers within 0 and 1, but is \[1.0\]"),
        ({"heads": []}, r"^heads must be a list of integers within 0 and 1, but is \[\]"),
        ({"heads": 1}, "^heads must be a list of integers within 0 and 1, but is 1"),
    ):
        with pytest.raises(ValueError, match=message):
            OfflineSession(translator(), policy, **options)
    with pytest.raises(ValueError, match="use IncrementalSession with MonotonicPolicy"):
        OfflineSession(translator("--simul-type infinite_lookback"), policy)
