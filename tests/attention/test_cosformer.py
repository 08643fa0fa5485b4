"""cosFormer's positions, cos(pi/2 (i / L_q - j / L_k)), and the lengths that they are measured against."""

import math

import torch

from mla_fairseq.attention import Full, Layout, build_attention
from tests.attention.cases import assert_close


def lengths(query: list[int], key: list[int]) -> dict[str, torch.Tensor]:
    return {"query_length": torch.tensor(query), "key_length": torch.tensor(key)}


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.float64)


def test_weights_follow_the_formula() -> None:
    """With equal contents, weights depend on positions only; two samples have different lengths."""
    layout = Layout.whole(Full(), 3, 4, **lengths([3, 6], [4, 8]))
    weights = build_attention("cosformer", 2).weights(ones(2, 1, 3, 2), ones(2, 1, 4, 2), layout)
    for sample, (target, source) in enumerate([(3, 4), (6, 8)]):
        rows = [[math.cos(math.pi / 2 * (i / target - j / source)) for j in range(1, 5)] for i in range(1, 4)]
        expected = torch.tensor(rows, dtype=torch.float64)
        assert_close(weights[sample, 0], expected / expected.sum(-1, keepdim=True))


def test_no_weight_is_negative_beyond_the_expected_length() -> None:
    layout = Layout.whole(Full(), 12, 12, **lengths([4], [3]))
    weights = build_attention("cosformer", 2).weights(ones(1, 1, 12, 2), ones(1, 1, 12, 2), layout)
    assert bool((weights > 0).all())
    assert_close(weights[..., 3:, :], weights[..., -1:, :].expand(1, 1, 9, 12))
