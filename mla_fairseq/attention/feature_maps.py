"""Linear mechanisms that are a feature map without positions."""

from typing import Any

import torch
from torch import Tensor, nn

from mla_fairseq.attention.linear import LinearAttention, ReLUAttention
from mla_fairseq.attention.numerics import linear
from mla_fairseq.attention.registry import register_attention


@register_attention("elu")
class ELUAttention(LinearAttention):
    """ELU + 1 features without positions (arXiv 2006.16236, equation 7)."""

    def features(self, x: Tensor) -> Tensor:
        return elu_plus_one(x)


@register_attention("relu2")
class SquaredReLUAttention(ReLUAttention):
    """Squared ReLU features, whose weights are sharper than ReLU's (as an activation: arXiv 2109.08668)."""

    def features(self, x: Tensor) -> Tensor:
        return x.relu().square()

    def surrogate_features(self, x: Tensor) -> Tensor:
        y = super().surrogate_features(x)
        return y.square() + (y - y.detach()) * (y == 0)  # the square is flat at zero: slope 1 there


@register_attention("exp")
class ExpAttention(LinearAttention):
    """Exponential features that sum to one for each token (after arXiv 1812.01243).

    The paper (section 3.2) normalizes keys over time, which a stream cannot: here the softmax is over the features.
    """

    def features(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


@register_attention("hedgehog")
class Hedgehog(LinearAttention):
    """Trained exponential features without positions (Hedgehog, arXiv 2402.04347).

    phi(x) = softmax([W x + b, -W x - b]), F = 2 d (section 4.2), with one map for queries and one for keys, shared by
    the heads (the paper has one for each head), that start as the identity. Exponentials make weights as spiky as
    softmax's; the negative half keeps what ReLU drops.
    """

    def __init__(self, head_dim: int, options: Any = None) -> None:
        super().__init__(head_dim)
        self.feature_size = 2 * head_dim
        self.query_map = _identity(head_dim)
        self.key_map = _identity(head_dim)

    def query_features(self, q: Tensor) -> Tensor:
        return _both_signs(linear(self.query_map, q))

    def key_features(self, k: Tensor) -> Tensor:
        return _both_signs(linear(self.key_map, k))


def _identity(size: int) -> nn.Linear:
    layer = nn.Linear(size, size)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _both_signs(x: Tensor) -> Tensor:
    return torch.cat((x, -x), dim=-1).softmax(-1)


def elu_plus_one(x: Tensor) -> Tensor:
    """Return ELU(x) + 1."""
    return x.clamp_max(0).exp() + x.relu()  # exp(min(x, 0)) + max(x, 0): half the time of torch's ELU
