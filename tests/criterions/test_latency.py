"""Latency as a loss: compared with the formulas of the papers in loops, and with the scores of the evaluation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mla_fairseq.criterions.latency import METRICS, gather, variance
from mla_fairseq.evaluation import latency as evaluation

DOUBLE = torch.float64


def batch(seed: int, sentences: int, targets: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return delays that never decrease (B, T), source lengths (B,), and a mask (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randint(3, 30, (sentences,), generator=generator)
    delays = (
        torch.rand(sentences, targets, dtype=DOUBLE, generator=generator).sort(1).values * sources.unsqueeze(1) * 1.3
    )
    lengths = torch.randint(1, targets + 1, (sentences,), generator=generator)
    mask = torch.arange(targets) < lengths.unsqueeze(1)
    return delays.minimum(sources.unsqueeze(1)), sources.to(DOUBLE), mask


def by_loops(name: str, delays: list[float], source: float) -> float:
    steps, targets = source / len(delays), len(delays)
    if name == "average_proportion":
        return sum(delays) / (source * targets)
    if name == "differentiable_average_lagging":
        spent, total = -math.inf, 0.0
        for i, delay in enumerate(delays):
            spent = max(delay, spent + steps)
            total += spent - i * steps
        return total / targets
    counted = next((i + 1 for i, delay in enumerate(delays) if delay >= source - 1e-3), targets)
    return sum(delay - i * steps for i, delay in enumerate(delays[:counted])) / counted


@pytest.mark.parametrize("name", METRICS)
@given(seed=st.integers(0, 10**6), sentences=st.integers(1, 3), targets=st.integers(1, 8))
def test_metrics_are_the_papers(name: str, seed: int, sentences: int, targets: int) -> None:
    delays, sources, mask = batch(seed, sentences, targets)
    found = METRICS[name](delays, sources, mask)
    for i in range(sentences):
        known = delays[i][mask[i]].tolist()
        assert float(found[i]) == pytest.approx(by_loops(name, known, float(sources[i])), abs=1e-9)
        reference = () if name == "differentiable_average_lagging" else (len(known),)
        evaluated = getattr(evaluation, name)(known, float(sources[i]), *reference)
        assert float(found[i]) == pytest.approx(evaluated, abs=0.01)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_have_gradients(name: str) -> None:
    delays, sources, mask = batch(3, 3, 6)
    delays = (delays * 0.9).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: METRICS[name](x, sources, mask), delays)
    METRICS[name](delays, sources, mask).sum().backward()
    assert not delays.grad[~mask].any(), "padding has no gradient"


def test_delays_of_heads_are_combined() -> None:
    delays = torch.tensor([[[1.0, 4.0], [3.0, 4.0]]])
    assert gather(delays, "average").tolist() == [[2, 4]]
    assert gather(delays, "max").tolist() == [[3, 4]]
    late = 1 / (1 + math.exp(-2))
    assert gather(delays, "weighted_average")[0].tolist() == pytest.approx([3 * late + (1 - late), 4])
    with pytest.raises(ValueError, match="must be weighted_average, average or max, but is 'min'"):
        gather(delays, "min")


def test_variance_is_over_heads_and_real_targets() -> None:
    delays = torch.tensor([[[1.0, 4.0, 9.0], [3.0, 4.0, 0.0]]])
    assert variance(delays, torch.tensor([[True, True, False]])).tolist() == [0.5]
