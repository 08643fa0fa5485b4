"""Dropout from 16 random bits: rate, rescaling, gradients, seeds, types, and when ``nn.Dropout`` is used."""

import pytest
import torch
from torch import nn

from mla_fairseq.models.dropout import LEVELS, Dropout, draw_mask

N = 2**20


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_rate_is_exact_and_the_mean_is_kept(p: float) -> None:
    torch.manual_seed(1)
    y = Dropout(p)(torch.ones(N))
    deviation = (p * (1 - p) / N) ** 0.5
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=5 * deviation)
    dropped = round(p * LEVELS)
    assert y[y > 0].unique().tolist() == [pytest.approx(LEVELS / (LEVELS - dropped), rel=1e-7)]


def test_every_rate_has_its_probability() -> None:
    """A rate of 1 / 65536 drops about one element in 65536: none of the 16 bits is constant."""
    torch.manual_seed(1)
    elements = 2**24
    zeros = (draw_mask(torch.empty(elements), 1) == 0).sum().item()
    assert abs(zeros - elements / LEVELS) < 5 * (elements / LEVELS) ** 0.5


def test_neighbours_are_independent() -> None:
    """Four elements share one random number of 64 bits: their masks must not."""
    torch.manual_seed(1)
    kept = (draw_mask(torch.empty(N), LEVELS // 2) > 0).double() - 0.5
    for distance in (1, 2, 3, 4, 8):
        correlation = 4 * (kept[:-distance] * kept[distance:]).mean().item()
        assert abs(correlation) < 5 / N**0.5


@pytest.mark.parametrize("shape", [(), (1,), (7, 5, 3), (0, 4)])
def test_the_gradient_is_the_mask(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    torch.manual_seed(3)
    y = Dropout(0.3)(x)
    torch.manual_seed(3)
    mask = draw_mask(x, round(0.3 * LEVELS))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, mask)
    assert torch.equal(y, x * mask)


def test_the_seed_determines_the_mask() -> None:
    x, dropout = torch.randn(1000), Dropout(0.5)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(1)
    assert torch.equal(first, dropout(x))
    assert not torch.equal(first, second)


def test_strides_are_kept_and_every_element_has_other_bits() -> None:
    x = torch.ones(64, 32, 16).permute(2, 0, 1)
    mask = draw_mask(x, LEVELS // 2)
    assert mask.shape == x.shape and mask.stride() == x.stride()
    assert 0.45 < (mask == 0).double().mean() < 0.55
    sliced = torch.ones(64, 32)[:, ::2]
    assert 0.4 < (Dropout(0.5)(sliced) == 0).double().mean() < 0.6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_type_is_kept_and_the_rescaling_rounds_once(dtype: torch.dtype) -> None:
    y = Dropout(0.1)(torch.full((1000,), 3.0, dtype=dtype))
    dropped = round(0.1 * LEVELS)
    assert y.dtype == dtype
    assert set(y.tolist()) == {0.0, torch.tensor(3 * LEVELS / (LEVELS - dropped), dtype=dtype).item()}


def test_autocast_trains_through_it() -> None:
    model = nn.Sequential(nn.Linear(8, 64), Dropout(0.5), nn.Linear(64, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(torch.randn(16, 8))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16 and model[0].weight.grad.abs().sum() > 0


def test_evaluation_returns_the_input_itself() -> None:
    x = torch.randn(10)
    assert Dropout(0.5).eval()(x) is x


@pytest.mark.parametrize("p", [0.0, 1.0, 1e-9])
def test_rates_that_need_no_mask_are_left_to_nn_dropout(p: float) -> None:
    x = torch.randn(100)
    assert torch.equal(Dropout(p)(x), nn.Dropout(round(p))(x))


def test_nn_dropout_is_used_in_place_and_under_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(100)
    torch.manual_seed(1)
    expected = nn.Dropout(0.5)(x)
    torch.manual_seed(1)
    assert not torch.equal(Dropout(0.5)(x), expected)
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.5, inplace=True)(x.clone()), expected)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.manual_seed(1)
    assert torch.equal(Dropout(0.5)(x), expected)
