"""Performer's directions, and that they estimate softmax: the laws alone would hold for any directions."""

import math

import pytest
import torch

from mla_fairseq.attention import build_attention


@pytest.mark.parametrize(("features", "size"), [(0, 16), (40, 16), (8, 16)])
def test_directions_are_at_right_angles_and_as_long_as_they_should_be(features: int, size: int) -> None:
    directions = build_attention("performer", size, features=features).features.directions
    assert directions.shape == (features or size, size)
    for group in directions.split(size):
        torch.testing.assert_close(group @ group.T, size * torch.eye(len(group)), atol=1e-4, rtol=1e-4)


def test_more_features_estimate_softmax_better() -> None:
    q, k = (torch.randn(2, 1, 1, 30, 16) / 2).unbind(0)
    places = torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    true = (q @ k.transpose(-1, -2) / 4).softmax(-1)

    def error(features: int) -> float:
        found = []
        for seed in range(8):
            torch.manual_seed(seed)
            scores = build_attention("performer", 16, features=features).scores(q, k, *places)
            found.append(float((scores / scores.sum(-1, keepdim=True) - true).abs().sum(-1).mean()))
        return sum(found) / len(found)

    few, many, most = error(16), error(128), error(2048)
    assert most < many < few
    assert most < 0.15


def test_values_are_a_little_below_softmaxs() -> None:
    """As the docstring says: directions of one length are the regularised kernel."""
    features = build_attention("performer", 16, features=16 * 10000).features
    x = torch.nn.functional.normalize(torch.randn(1, 1, 1, 16), dim=-1) * 16**0.25
    assert float(features._exponent(x).exp().square().mean()) / math.e == pytest.approx(0.84, abs=0.03)


def test_heads_that_would_overflow_are_refused() -> None:
    with pytest.raises(ValueError, match=r"performer has heads of at most 140 channels.*have 256: take more heads"):
        build_attention("performer", 256)
    key = build_attention("performer", 140).features
    longest = key.key(key.directions[:1] * 140**0.25)
    assert (longest * 1e6).isfinite().all()
