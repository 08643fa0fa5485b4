"""LeaPformer: learned proportions instead of positions."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from mla_fairseq.attention.base import Layout
from mla_fairseq.attention.cosformer import on_circle
from mla_fairseq.attention.linear import ReLUAttention
from mla_fairseq.attention.numerics import linear
from mla_fairseq.attention.registry import register_attention


@dataclass(frozen=True)
class LeapOptions:
    """Size of the modules that compute proportions."""

    factor: int = field(default=4, metadata={"help": "head size divided by the size of their hidden layer"})


@register_attention("leap", options=LeapOptions)
class LeaPformer(ReLUAttention):
    """ReLU features, re-weighted by the cosine of the distance of learned proportions (LeaPformer, arXiv 2405.13046).

    cosFormer's psi = [cos a, sin a] with a = pi/2 P(phi(x)), M = 2. ``P(x) = sigmoid(W2 relu(W1 x))`` replaces the
    relative position: it is computed from a token's content, so no length is needed and the order may be learned. There
    is one module for queries and one for keys, shared by the heads: 2114 parameters for heads of 64.

    Raises:
        ValueError: a factor below 1.
    """

    position_size = 2

    def __init__(self, head_dim: int, options: LeapOptions = LeapOptions()) -> None:
        super().__init__(head_dim)
        if options.factor < 1:
            raise ValueError(f"--leap-factor must be at least 1, but is {options.factor}")
        self.query_proportion = Proportion(head_dim, max(1, head_dim // options.factor))
        self.key_proportion = Proportion(head_dim, max(1, head_dim // options.factor))

    def query_positions(self, q: Tensor, layout: Layout) -> Tensor:
        return on_circle(self.query_proportion(q))

    def key_positions(self, k: Tensor, layout: Layout) -> Tensor:
        return on_circle(self.key_proportion(k))


class Proportion(nn.Module):
    """Map features (.., d) to a number between 0 and 1, (..)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        return linear(self.output, linear(self.hidden, features).relu()).sigmoid().squeeze(-1)
