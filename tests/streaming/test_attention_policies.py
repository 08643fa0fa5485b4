"""AlignAtt and EDAtt stop where their published implementations do."""

import numpy as np
import pytest

from mla_fairseq.streaming import AlignAttPolicy, AttentionPolicy, EDAttPolicy


def tokens_before_the_stop(policy: AttentionPolicy, weights: np.ndarray) -> int:
    """Return how many rows of weights (tokens, states) come before the first that stops."""
    stops = (policy.stops(token, row.tolist(), len(row)) for token, row in enumerate(weights))
    return next((token for token, stop in enumerate(stops) if stop), len(weights))


def published_align_att(weights: np.ndarray, frames: int) -> int:
    """Return the same by the published rule: all columns but the last, the argmax of each row, the first cut."""
    without = weights[:, :-1]
    late = np.flatnonzero(without.argmax(1) >= without.shape[1] - frames)
    return int(late[0]) if len(late) else len(weights)


def published_edatt(weights: np.ndarray, frames: int, threshold: float) -> int:
    """Return the same by the published rule: rows divided by their Euclidean norm, the sum of the last, the cut."""
    without = weights[:, :-1]
    scaled = without / np.sqrt((without**2).sum(1, keepdims=True))
    late = np.flatnonzero(scaled[:, -frames:].sum(1) >= threshold)
    return int(late[0]) if len(late) else len(weights)


@pytest.mark.parametrize("sink", [0.0, 5.0])
def test_rules_are_the_published_ones(sink: float) -> None:
    rng, differ = np.random.default_rng(1), 0
    for _ in range(500):
        states, frames, threshold = rng.integers(2, 40), int(rng.integers(1, 6)), float(rng.uniform(0.05, 1))
        scores = rng.normal(0, 2, (12, states)) + sink * (np.arange(states) == states - 1)
        weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        found = tokens_before_the_stop(AlignAttPolicy(frames), weights)
        assert found == published_align_att(weights, frames)
        assert tokens_before_the_stop(EDAttPolicy(threshold, frames), weights) == published_edatt(
            weights, frames, threshold
        )
        differ += found != tokens_before_the_stop(AlignAttPolicy(frames, skip_last=0), weights)
    assert differ > 100, "a sink that changes nothing would prove nothing"


def test_a_sink_at_the_end_does_not_hide_the_alignment() -> None:
    weights = [0.1, 0.4, 0.1, 0.05, 0.05, 0.3]
    assert not AlignAttPolicy(2).stops(0, weights, 6)
    weights[-1] = 3.0
    assert not AlignAttPolicy(2).stops(0, weights, 6)
    assert AlignAttPolicy(2, skip_last=0).stops(0, weights, 6)
    assert AlignAttPolicy(4).stops(0, weights, 6), "states 1 to 4 are the last four before the sink"
    assert not AlignAttPolicy(3).stops(0, weights, 6)


def test_a_sink_at_the_start_does_not_hide_the_alignment() -> None:
    weights = [0.6, 0.05, 0.05, 0.2, 0.1]
    assert not AlignAttPolicy(1).stops(0, weights, 5)
    assert AlignAttPolicy(1, skip_first=1).stops(0, weights, 5)
    assert not EDAttPolicy(0.5, 1).stops(0, weights, 5)
    assert EDAttPolicy(0.5, 1, skip_first=1).stops(0, weights, 5)


def test_edatt_divides_by_the_norm_and_stops_at_the_threshold() -> None:
    weights = [0.3, 0.4, 0.0, 0.3]
    assert EDAttPolicy(0.8, 2).stops(0, weights, 4), "0.4 / 0.5"
    assert not EDAttPolicy(0.81, 2).stops(0, weights, 4)
    assert EDAttPolicy(0.0, 1).stops(0, [0.5, 0.0, 0.5], 3), "zero is at least zero"


@pytest.mark.parametrize("policy", [AlignAttPolicy(1), AlignAttPolicy(0), EDAttPolicy(1.0)], ids=str)
def test_without_a_weight_a_token_waits(policy: AttentionPolicy) -> None:
    assert policy.stops(0, [0.0, 0.0, 0.0, 1.0], 4), "only the dropped state has a weight"
    assert policy.stops(0, [1.0], 1), "only the dropped state has arrived"
    assert policy.stops(0, [0.0] * 4, 4)


@pytest.mark.parametrize("name", ["skip_last", "skip_first"])
@pytest.mark.parametrize("value", [-1, 1.0, True, None])
def test_bad_numbers_of_states_are_refused(name: str, value: object) -> None:
    flag = name.replace("_", "-")
    for make in AlignAttPolicy, EDAttPolicy:
        with pytest.raises(ValueError, match=f"^--{flag} must be an integer of at least 0, but is {value}"):
            make(1, **{name: value})
