"""Monotonic alignments and soft attention against slow loops over the papers' equations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from mla_fairseq.attention import Monotonic, chunkwise, expected_alignment, infinite_lookback
from mla_fairseq.attention.monotonic import ends, pool, steps_of, to_states

DOUBLE = torch.float64


def by_recurrence(p: Tensor, steps: list[int], mass_preservation: bool) -> Tensor:
    """Compute arXiv 1704.00784, equation 8: from step k of the target before to step j, with no stop between."""
    batch, heads, targets, _ = p.shape
    alignment = torch.zeros_like(p)
    for b in range(batch):
        for h in range(heads):
            before = [1.0] + [0.0] * (steps[b] - 1)
            for i in range(targets):
                now = []
                for j in range(steps[b]):
                    mass = 0.0
                    for k in range(j + 1):
                        passed = 1.0
                        for m in range(k, j):
                            passed *= 1 - float(p[b, h, i, m])
                        mass += before[k] * passed
                    now.append(float(p[b, h, i, j]) * mass)
                before = now
                alignment[b, h, i, : steps[b]] = torch.tensor(now, dtype=p.dtype)
                if mass_preservation:
                    alignment[b, h, i, steps[b] - 1] += 1 - sum(now)
    return alignment


shapes = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 5), st.integers(1, 7), st.integers(0, 10**6))


@given(shapes, st.booleans(), st.booleans())
def test_alignment_is_the_recurrence(shape: tuple, mass_preservation: bool, extreme: bool) -> None:
    *sizes, seed = shape
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(*sizes, dtype=DOUBLE, generator=generator)
    if extreme:  # 0, 1, and numbers next to them
        p = torch.where(p < 0.3, 0.0, torch.where(p > 0.7, 1.0, torch.where(p < 0.5, 1e-12, 1 - 1e-12))).to(DOUBLE)
    steps = torch.randint(1, sizes[-1] + 1, (sizes[0],), generator=generator)
    found = expected_alignment(p, steps, mass_preservation)
    assert_close(found, by_recurrence(p, steps.tolist(), mass_preservation), rtol=0, atol=1e-9)
    if mass_preservation:
        assert_close(found.sum(-1), torch.ones_like(found[..., 0]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("mass_preservation", [True, False])
def test_alignment_has_the_right_gradient(mass_preservation: bool) -> None:
    torch.manual_seed(1)
    p = torch.rand(2, 2, 4, 6, dtype=DOUBLE, requires_grad=True)
    steps = torch.tensor([6, 3])
    assert torch.autograd.gradcheck(lambda p: expected_alignment(p, steps, mass_preservation), p)


def test_alignment_is_stable_in_float32() -> None:
    torch.manual_seed(1)
    p = (torch.randn(1, 4, 40, 500, dtype=DOUBLE) * 8).sigmoid()  # most are within 1e-3 of 0 or 1
    assert_close(expected_alignment(p.float()).double(), expected_alignment(p), rtol=0, atol=1e-5)


def softly(alignment: Tensor, weights: Tensor, window: int | None) -> Tensor:
    """Compute the expected attention, target by target and stop by stop."""
    expected = torch.zeros_like(alignment)
    for k in range(alignment.shape[-1]):
        first = 0 if window is None else max(0, k - window + 1)
        part = weights[..., first : k + 1]
        expected[..., first : k + 1] += alignment[..., k : k + 1] * part / part.sum(-1, keepdim=True)
    return expected


@given(shapes, st.sampled_from([None, 1, 2, 3, 20]))
def test_soft_attention_is_the_mean_over_all_stops(shape: tuple, window: int | None) -> None:
    *sizes, seed = shape
    generator = torch.Generator().manual_seed(seed)
    alignment, weights = (torch.rand(*sizes, dtype=DOUBLE, generator=generator) for _ in range(2))
    soft = infinite_lookback(alignment, weights) if window is None else chunkwise(alignment, weights, window)
    assert_close(soft, softly(alignment, weights, window), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "lengths, threshold, steps",
    [([7, 8, 14, 1], 1.0, [1, 2, 2, 1]), ([8, 11, 12, 13], 0.3, [1, 1, 2, 2]), ([1, 7], 0.0, [1, 1])],
)
def test_the_last_step_counts_if_little_of_it_is_missing(lengths: list, threshold: float, steps: list) -> None:
    assert steps_of(torch.tensor(lengths), 7, threshold).tolist() == steps


@pytest.mark.parametrize("pooling", ["average", "last"])
def test_pooling_ignores_padding(pooling: str) -> None:
    torch.manual_seed(1)
    states = torch.randn(8, 2, 3, dtype=DOUBLE)
    mask = torch.arange(8) < torch.tensor([[8], [5]])
    found = pool(states, 3, pooling, mask)
    for b, length in enumerate([8, 5]):
        for j in range(-(-length // 3)):
            part = states[3 * j : min(3 * j + 3, length), b]
            assert_close(found[j, b], part.mean(0) if pooling == "average" else part[-1])


def test_alignment_to_steps_is_on_their_last_states() -> None:
    alignment = torch.tensor([[[[0.25, 0.75, 0.0]]], [[[0.0, 0.5, 0.5]]]])
    found = to_states(alignment, ends(3, torch.tensor([5, 8]), 3), 8)
    assert found[0, 0, 0].tolist() == [0, 0, 0.25, 0, 0.75, 0, 0, 0]
    assert found[1, 0, 0].tolist() == [0, 0, 0, 0, 0, 0.5, 0, 0.5]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"soft": "soft"}, "must be one of hard_aligned"),
        ({"ratio": 0}, "must be at least 1"),
        ({"pooling": "max"}, "average or last"),
        ({"chunk": 0}, "--mocha-chunk-size must be at least 1, but is 0"),
        ({"pad_threshold": 2.0}, "from 0 to 1"),
        ({"noise_var": -1.0}, "at least 0"),
    ],
)
def test_a_wrong_option_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Monotonic(**wrong)
