"""Performer's directions, and that they estimate softmax (all forms agree for any directions)."""

import math

import pytest
import torch

from mla_fairseq.attention import Full, Layout, build_attention


@pytest.mark.parametrize(("features", "size"), [(0, 16), (40, 16), (8, 16)])
def test_directions_are_orthogonal_and_have_the_length_sqrt_d(features: int, size: int) -> None:
    directions = build_attention("performer", size, features=features).directions
    assert directions.shape == (features or size, size)
    for group in directions.split(size):
        torch.testing.assert_close(group @ group.T, size * torch.eye(len(group)), atol=1e-4, rtol=1e-4)


def test_more_features_estimate_softmax_better() -> None:
    q, k = (torch.randn(2, 1, 1, 30, 16) / 2).unbind(0)
    true = (q @ k.transpose(-1, -2) / 4).softmax(-1)

    def error(features: int) -> float:
        found = []
        for seed in range(8):
            torch.manual_seed(seed)
            weights = build_attention("performer", 16, features=features).weights(q, k, Layout.whole(Full(), 30))
            found.append(float((weights - true).abs().sum(-1).mean()))
        return sum(found) / len(found)

    few, many, most = error(16), error(128), error(2048)
    assert most < many < few
    assert most < 0.15


def test_values_are_a_little_below_softmaxs() -> None:
    """As the docstring states: directions of one length give the regularized kernel."""
    mechanism = build_attention("performer", 16, features=16 * 10000)
    projected, norm = mechanism._project(torch.nn.functional.normalize(torch.randn(1, 16), dim=-1) * 16**0.25)
    assert float((projected - norm).exp().square().mean()) / math.e == pytest.approx(0.84, abs=0.03)


def test_stabilizers_keep_a_few_features_from_dominating() -> None:
    """As the docstring states: unit normal queries and keys of 64 channels give little more than the mean of values."""
    q, k, v = (torch.randn(8, 4, 60, 64) for _ in range(3))
    layout, mechanism = Layout.whole(Full(), 60), build_attention("performer", 64)
    true = torch.nn.functional.scaled_dot_product_attention(q, k, v)

    def error(output: torch.Tensor) -> float:
        return float((output - true).norm() / true.norm())

    assert error(mechanism.parallel(q, k, v, layout)) < 0.95
    mechanism.key_stabilizer = 0.0
    assert error(mechanism.parallel(q, k, v, layout)) > 1.2


def test_directions_are_drawn_again_every_redraw_updates() -> None:
    mechanism = build_attention("performer", 16, redraw=3)
    drawn = mechanism.directions
    for updates, same in ((0, True), (2, True), (3, False)):
        mechanism.set_num_updates(updates)
        assert torch.equal(mechanism.directions, drawn) == same
    drawn = mechanism.eval().directions
    mechanism.set_num_updates(6)
    assert torch.equal(mechanism.directions, drawn), "evaluation is deterministic"


def test_heads_that_would_overflow_are_refused() -> None:
    with pytest.raises(
        ValueError, match="performer heads must have at most 140 channels, but have 256: use more heads"
    ):
        build_attention("performer", 256)
    mechanism = build_attention("performer", 140)
    longest = mechanism.key_features(mechanism.directions[:1] * 140**0.25)
    assert (longest * 1e6).isfinite().all()
