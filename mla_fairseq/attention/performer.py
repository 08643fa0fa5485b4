"""Performer: random features whose products estimate softmax's exponentials (FAVOR+)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mla_fairseq.attention.linear import LinearAttention
from mla_fairseq.attention.registry import register_attention

LARGEST = 40.0
"""Logarithm of the largest feature that a key can have: sums of a million of them fit into float32."""

STABILIZER = 1e-4

MOST = 140
"""Channels of a head, so that a sum of a million keys' features fits: e^(70 + 14)."""


@dataclass(frozen=True)
class PerformerOptions:
    """How many random features, and for how long."""

    features: int = field(default=0, metadata={"help": "number of random features; 0: the head's size"})
    redraw: int = field(
        default=0,
        metadata={
            "help": "draw them again every so many updates of training; 0: once. Average checkpoints of different "
            "draws only with scripts/average_checkpoints.py"
        },
    )


@register_attention("performer", options=PerformerOptions)
class Performer(LinearAttention):
    """Positive random features that estimate softmax's exponentials (FAVOR+, arXiv 2009.14794).

    phi_i(x) = exp(w_i . x' - |x'|^2 / 2), x' = x / d^(1/4) (lemma 1): in expectation over w ~ N(0, I), phi(q) .
    phi(k) is exp(q . k / sqrt(d)). The w_i are orthogonal in groups of d and have the length sqrt(d) (section 2.4
    and appendix B: values a little below softmax's). They are drawn when the module is made and saved with it;
    ``set_num_updates``, which fairseq calls, draws them again if asked.

    As in the reference implementation, projections of a query are shifted by their maximum, those of keys by the
    maximum over all keys, and 1e-4 is added to every feature. A stream does not know all keys: here the shift is
    that of unit normal keys, four standard deviations of d^(1/4). Without these constants a few large features
    decide: for d = 64 and unit normal queries and keys the output is off by 2.5 times its size, with them by 0.8,
    as is the plain mean of the values. The default of d features suits shorter queries and keys (half as long:
    0.25), and more help little (256: 0.78).

    Raises:
        ValueError: a negative number of features or updates, or heads that are too large.
    """

    def __init__(self, head_dim: int, options: PerformerOptions = PerformerOptions()) -> None:
        super().__init__(head_dim)
        if head_dim > MOST:
            raise ValueError(
                f"performer has heads of at most {MOST} channels, beyond which its features overflow, but they have "
                f"{head_dim}: take more heads"
            )
        if options.features < 0 or options.redraw < 0:
            raise ValueError(
                "--performer-features and --performer-redraw must be at least 0, but are "
                f"{options.features} and {options.redraw}"
            )
        self.redraw = options.redraw
        self.register_buffer("directions", _orthogonal(options.features or head_dim, head_dim))
        self.shift = max(0.0, LARGEST - head_dim / 2)
        self.key_stabilizer = STABILIZER * math.exp(4 * head_dim**0.25 + self.shift)

    def query_features(self, q: Tensor) -> Tensor:
        projected, norm = self._project(q)
        return (projected - norm - projected.amax(-1, keepdim=True).detach()).exp() + STABILIZER

    def key_features(self, k: Tensor) -> Tensor:
        projected, norm = self._project(k)
        return (projected - norm + self.shift).exp() + self.key_stabilizer

    def set_num_updates(self, num_updates: int) -> None:
        """Draw again if this many updates of training are a multiple of ``redraw``."""
        if self.training and self.redraw and num_updates and num_updates % self.redraw == 0:
            self.directions = _orthogonal(*self.directions.shape).to(self.directions)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return w . x', (.., m), and |x'|^2 / 2, (.., 1)."""
        x = x * self.directions.shape[1] ** -0.25
        return x @ self.directions.to(x).mT, x.square().sum(-1, keepdim=True) / 2


def _orthogonal(rows: int, size: int) -> Tensor:
    """(rows, size), from torch's generator: rows of length sqrt(size), in groups of ``size`` at right angles."""
    groups = []
    for _ in range(-(-rows // size)):
        q, r = torch.linalg.qr(torch.randn(size, size))
        groups.append((q * r.diagonal().sign()).transpose(0, 1))  # the signs make every direction as likely
    return torch.cat(groups)[:rows] * math.sqrt(size)
