"""Linear mechanisms that are a feature map without positions or parameters."""

from __future__ import annotations

from torch import Tensor

from mla_fairseq.attention.linear import LinearAttention, ReLUAttention
from mla_fairseq.attention.registry import register_attention


@register_attention("elu")
class ELUAttention(LinearAttention):
    """ELU + 1 features without positions (arXiv 2006.16236, equation 7)."""

    def features(self, x: Tensor) -> Tensor:
        return elu_plus_one(x)


@register_attention("relu2")
class SquaredReLUAttention(ReLUAttention):
    """Squared ReLU features, whose weights are sharper than ReLU's (between layers: arXiv 2109.08668)."""

    def features(self, x: Tensor) -> Tensor:
        return x.relu().square()

    def surrogate_features(self, x: Tensor) -> Tensor:
        y = super().surrogate_features(x)
        return y.square() + (y - y.detach()) * (y == 0)  # the square is flat at zero: slope 1 there


@register_attention("exp")
class ExpAttention(LinearAttention):
    """Exponential features that sum to one in each token (after arXiv 1812.01243).

    Efficient attention (Shen et al. 2018, arXiv 1812.01243, section 3.2) takes the keys' softmax over time, which
    cannot stream: over the features each token's depends on that token alone.
    """

    def features(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


def elu_plus_one(x: Tensor) -> Tensor:
    """Return ELU(x) + 1 as exp(min(x, 0)) + max(x, 0), half the time of torch's ELU."""
    return x.clamp_max(0).exp() + x.relu()
