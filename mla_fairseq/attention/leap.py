"""LeaPformer: learned proportions in place of positions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mla_fairseq.attention.features import ReLUFeatures
from mla_fairseq.attention.linear import LinearAttention
from mla_fairseq.attention.precision import linear
from mla_fairseq.attention.registry import register_attention


@dataclass(frozen=True)
class LeapOptions:
    """Size of the modules that say where a token stands."""

    factor: int = field(default=4, metadata={"help": "their hidden layer has the head's size divided by this"})


class LearnedProportions(nn.Module):
    """cosFormer's psi = [cos a, sin a] with a = pi/2 P(phi(x)), M = 2 (LeaPformer, arXiv 2405.13046).

    ``P(x) = sigmoid(W2 relu(W1 x))`` replaces the relative position: each token says by its content where it stands, so
    that no length is needed, and what is before or behind may be learned. One module for queries and one for keys,
    shared by the heads; 2114 parameters with heads of 64.

    Raises:
        ValueError: a factor below 1.
    """

    size = 2
    measured = False

    def __init__(self, head_dim: int, factor: int = 4) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"--leap-factor must be at least 1, but is {factor}")
        self.query_proportion = Proportion(head_dim, max(1, head_dim // factor))
        self.key_proportion = Proportion(head_dim, max(1, head_dim // factor))

    def query(self, features: Tensor, index: Tensor | None, length: Tensor | None) -> Tensor:
        return _psi(self.query_proportion(features))

    def key(self, features: Tensor, index: Tensor | None, length: Tensor | None) -> Tensor:
        return _psi(self.key_proportion(features))


class Proportion(nn.Module):
    """Features (.., d) to a number between 0 and 1, (.., 1)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        return linear(self.output, linear(self.hidden, features).relu()).sigmoid()


def _psi(proportion: Tensor) -> Tensor:
    angle = proportion * (math.pi / 2)
    return torch.cat((angle.cos(), angle.sin()), dim=-1)


@register_attention("leap", options=LeapOptions)
def leap(head_dim: int, options: LeapOptions) -> nn.Module:
    """ReLU features re-weighted by the cosine of the distance of learned proportions (arXiv 2405.13046)."""
    return LinearAttention(ReLUFeatures(), LearnedProportions(head_dim, options.factor))
