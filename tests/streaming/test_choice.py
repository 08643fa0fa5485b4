"""Policies by their names: those that suit a model begin a session with every number that servers accept."""

import pytest

from mla_fairseq.streaming import AlignAttPolicy, HoldPolicy, IncrementalSession, OfflineSession, WaitKPolicy
from mla_fairseq.streaming.choice import begin_long, begin_session, default_number, numbers, suitable
from tests.streaming.test_long import MONOTONIC

OFFLINE = ["align-att", "local-agreement", "hold"]
MODELS = {
    "wait-k": ("--attn-type relu", ["wait-k", *OFFLINE], 2),
    "monotonic": (MONOTONIC, ["monotonic"], 0),
    "full-context": ("--encoder-chunk-size 0", OFFLINE, 4),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_suitable_policy_begins_with_its_numbers(translator, name: str) -> None:
    flags, policies, default = MODELS[name]
    model = translator(flags)
    assert suitable(model) == policies
    assert default_number(model, policies[0]) == default
    for policy in policies:
        allowed = numbers(model, policy)
        assert default_number(model, policy) in allowed
        for number in (allowed[0], allowed[-1]):
            session, segment = begin_session(model, policy, number)
            assert (type(session), segment) in ((IncrementalSession, 1), (OfflineSession, 7))
            assert begin_long(model, policy, number).fresh.policy == session.policy


def test_a_number_is_that_of_the_policy(translator) -> None:
    model = translator("--attn-type relu")
    assert list(numbers(model, "wait-k")) == [1, 2, 3]
    assert begin_long(model).fresh.policy == WaitKPolicy(2, 3)
    assert begin_long(model, "wait-k", 3).fresh.policy == WaitKPolicy(3, 3)
    assert begin_long(model, "align-att").fresh.policy == AlignAttPolicy(4)
    assert begin_long(model, "hold", 0).fresh.policy == HoldPolicy(0)


def test_an_unsuitable_policy_is_refused(translator) -> None:
    message = "the policy 'wait-k' does not suit this model: use one of monotonic"
    with pytest.raises(ValueError, match=message):
        begin_long(translator(MONOTONIC), "wait-k")
