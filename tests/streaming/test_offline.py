"""Offline models that speak early: policies as plain decisions, and what goes out is never taken back."""

import numpy as np
import pytest
import torch

from mla_fairseq.streaming import (
    AlignAttPolicy,
    EDAttPolicy,
    HoldPolicy,
    LocalAgreementPolicy,
    OfflineSession,
    OfflineWaitKPolicy,
    Session,
    WholeSourcePolicy,
)
from mla_fairseq.streaming.offline import Attempt
from tests.streaming.conftest import RATE, noise

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


def say(session: OfflineSession, samples: np.ndarray, pieces: int = 8) -> list[tuple[str, int]]:
    """Every word with the encoder states that were there when it went out."""
    writes = [write for piece in np.array_split(samples, pieces) for write in session.push(piece)]
    writes += session.finish()
    return [(word, write.heard) for write in writes for word in write.text.split()]


@every_model
@every_policy
@pytest.mark.parametrize("beam", [1, 3])
def test_no_word_depends_on_audio_that_had_not_come(translator, flags: str, policy, beam: int) -> None:
    samples = noise(2.3, 3)
    changed = samples.copy()
    changed[RATE:] = noise(2.3, 99)[RATE:]
    sessions = [OfflineSession(translator(flags), policy, beam) for _ in range(2)]
    early = [
        [session.push(piece) for piece in np.array_split(x[:RATE], 4)]
        for session, x in zip(sessions, (samples, changed), strict=True)
    ]
    assert early[0] == early[1]
    before = sessions[0].committed
    sessions[0].push(samples[RATE:], final=True)
    assert sessions[0].committed[: len(before)] == before, "what is out is never taken back"


@every_model
def test_policies_speak_before_the_end(translator, flags: str) -> None:
    """Not every one on every drawn model, but some on each."""
    early = 0
    for policy in POLICIES.values():
        said = say(OfflineSession(translator(flags), policy), noise(2.3, 3))
        assert said
        early += said[0][1] < said[-1][1]
    assert early > 1


@pytest.mark.parametrize("flags", [MODELS["chunked"], MODELS["chunked-cosformer"]])
@pytest.mark.parametrize("beam", [1, 3])
def test_who_says_nothing_before_the_end_says_what_the_whole_source_gives(translator, flags: str, beam: int) -> None:
    samples = noise(2.3, 3)
    waiting = OfflineSession(translator(flags), AlignAttPolicy(10_000), beam)
    whole = Session(translator(flags), WholeSourcePolicy(), beam)
    expected = [word for write in [*whole.push(samples), *whole.finish()] for word in write.text.split()]
    assert [word for word, _ in say(waiting, samples)] == expected


@every_model
def test_weights_of_a_step_are_those_of_the_whole_target(translator, flags: str) -> None:
    model = translator(flags)
    session = OfflineSession(model, AlignAttPolicy(4), layer=0)
    session.push(noise(2.3, 3))
    attempt, tokens, found = Attempt(session), [5, 7, 6, 9], []
    eos = model.dictionary.eos()
    for token in [eos, *tokens]:
        found.append(attempt.look(token)[1])
    encoder_out = {"encoder_out": [session.states], "encoder_padding_mask": []}
    rule = model.model.decoder.length_rule
    lengths = None if rule is None else rule(torch.tensor([len(session.states)]))
    with torch.no_grad():
        given = torch.tensor([[eos, *tokens]])
        model.model.decoder.lagging = None
        _, extra = model.model.decoder(given, encoder_out, alignment_layer=0, target_lengths=lengths)
    model.model.decoder.lagging = None if model.wait_k is None else model.wait_k.middle
    torch.testing.assert_close(torch.tensor(found), extra["attn"][0][0], rtol=0, atol=1e-5)


def test_policies_are_plain_decisions() -> None:
    attention = [0.1, 0.5, 0.15, 0.25]
    assert not AlignAttPolicy(2).refuses(0, attention, 4)
    assert AlignAttPolicy(3).refuses(0, attention, 4)
    assert not AlignAttPolicy(0).refuses(0, [0.0, 1.0], 2)
    assert EDAttPolicy(0.3, 2).refuses(0, attention, 4)
    assert not EDAttPolicy(0.5, 2).refuses(0, attention, 4)
    assert LocalAgreementPolicy(2).commits([[1, 2, 3]], 9) == 0
    assert LocalAgreementPolicy(2).commits([[1, 2, 3], [1, 2, 4, 5]], 9) == 2
    assert LocalAgreementPolicy(3).commits([[1, 2], [1, 2, 3], [1, 2, 4]], 9) == 2
    assert HoldPolicy(2).commits([[1, 2, 3]], 9) == 1
    assert HoldPolicy(5).commits([[1, 2, 3]], 9) == 0
    assert not OfflineWaitKPolicy(2, 7).refuses(1, [], 21)
    assert OfflineWaitKPolicy(2, 7).refuses(2, [], 21)
    assert OfflineWaitKPolicy(2, 7).commits([list(range(9))], 21) == 2, "a beam's hypothesis is cut by the same rule"
    assert OfflineWaitKPolicy(9, 7).commits([list(range(9))], 21) == 0


@pytest.mark.parametrize("beam", [1, 3])
def test_wait_k_waits_whatever_the_beam(translator, beam: int) -> None:
    lagging, ratio = 5, 3
    session, samples, said = OfflineSession(translator(), OfflineWaitKPolicy(lagging, ratio), beam), noise(2.3, 3), 0
    for start in range(0, len(samples), 2000):
        session.push(samples[start : start + 2000])
        said = len(session.committed)
        assert said == 0 or len(session.states) >= ratio * (lagging + said - 1)
    assert said > 0, "a session that never speaks proves nothing"


@every_model
def test_a_snapshot_goes_its_own_way(translator, flags: str) -> None:
    samples = noise(2.3, 3)
    for policy in POLICIES.values():
        session = OfflineSession(translator(flags), policy)
        session.push(samples[:20_000])
        snapshot = session.snapshot()
        expected = session.push(samples[20_000:], final=True)
        for _ in range(2):
            session.restore(snapshot)
            session.push(noise(0.5, 8))  # a way that is given up
            session.restore(snapshot)
            assert session.push(samples[20_000:], final=True) == expected


def test_what_the_model_is_like_is_told_once(translator, caplog: pytest.LogCaptureFixture) -> None:
    model = translator(MODELS["whole"])
    model._noted.clear()
    with caplog.at_level("INFO", "mla_fairseq"):
        for _ in range(3):
            OfflineSession(model, AlignAttPolicy(4))
    assert caplog.text.count("encodes everything anew") == 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: AlignAttPolicy(-1), "--frame-num must be at least 0, but is -1"),
        (lambda: EDAttPolicy(2.0), "--attn-threshold must be within 0 and 1"),
        (lambda: LocalAgreementPolicy(1), "--agreeing must be at least 2"),
        (lambda: HoldPolicy(-1), "--hold must be at least 0"),
        (lambda: OfflineWaitKPolicy(0, 7), "at least 1, but they are 0 and 7"),
    ],
)
def test_a_policy_that_is_none_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_session_that_is_none_is_refused(translator) -> None:
    policy = AlignAttPolicy(4)
    for options, message in (
        ({"beam": 0}, "the beam must be at least 1"),
        ({"layer": 2}, "--attn-layer must be within 0 and 1, but is 2"),
        ({"heads": [0, 2]}, "--attn-heads must be within 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            OfflineSession(translator(), policy, **options)
    with pytest.raises(ValueError, match="take MonotonicAgent"):
        OfflineSession(translator("--simul-type infinite_lookback"), policy)
