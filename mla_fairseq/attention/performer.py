"""Performer: random features whose products estimate softmax's exponentials (FAVOR+)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mla_fairseq.attention.linear import LinearAttention
from mla_fairseq.attention.registry import register_attention

LARGEST = 40.0
"""Logarithm of the largest feature that a key can have: sums of a million of them fit into float32."""

MOST = 140
"""Channels of a head, so that a sum of a million keys' features fits: e^(70 + 14)."""


@dataclass(frozen=True)
class PerformerOptions:
    """How many random features, and for how long."""

    features: int = field(default=0, metadata={"help": "number of random features; 0: the head's size"})
    redraw: int = field(
        default=0,
        metadata={
            "help": "draw them anew every so many updates of training; 0: once, for good. Checkpoints of different "
            "draws are not to be averaged by other tools than scripts/average_checkpoints.py"
        },
    )


class RandomFeatures(nn.Module):
    """phi_i(x) = exp(w_i . x' - |x'|^2 / 2), x' = x / d^(1/4) (Choromanski et al. 2020, arXiv 2009.14794, lemma 1).

    In expectation over w ~ N(0, I), phi(q) . phi(k) is exp(q . k / sqrt(d)). The w_i here are orthogonal in groups of d
    and all have the length sqrt(d): the regularised kernel of section 2.4 and appendix B, whose values are a little
    below softmax's (for unit vectors by 6 % with d = 64, by 16 % with d = 16). They are drawn when the module is made
    and saved with it, so that decoding is deterministic; ``set_num_updates``, which fairseq calls, draws them anew
    where that is asked for.

    Queries are divided by their largest feature, which cancels. Of keys, a running maximum would have to: it is not
    needed, since w . x - |x|^2 / 2 is never above |w|^2 / 2 = d / 2, which float32 holds for heads of up to 140
    channels; larger ones are refused. Keys far longer than any direction (|k| above 24 with d = 64) have features that
    are zero in float32, and are not seen.

    Raises:
        ValueError: a negative number of features or updates, or heads that are too large.
    """

    def __init__(self, head_dim: int, features: int = 0, redraw: int = 0) -> None:
        super().__init__()
        if head_dim > MOST:
            raise ValueError(
                f"performer has heads of at most {MOST} channels, beyond which its features overflow, but they have "
                f"{head_dim}: take more heads"
            )
        if features < 0 or redraw < 0:
            raise ValueError(
                f"--performer-features and --performer-redraw must be at least 0, but are {features} and {redraw}"
            )
        self.redraw = redraw
        self.register_buffer("directions", _orthogonal(features or head_dim, head_dim))
        self.shift = max(0.0, LARGEST - head_dim / 2)

    def query(self, x: Tensor) -> Tensor:
        exponent = self._exponent(x)
        return (exponent - exponent.amax(-1, keepdim=True).detach()).exp()

    def key(self, x: Tensor) -> Tensor:
        return (self._exponent(x) + self.shift).exp()

    def set_num_updates(self, num_updates: int) -> None:
        """Draw anew if this many updates of training are a multiple of ``redraw``."""
        if self.training and self.redraw and num_updates and num_updates % self.redraw == 0:
            self.directions = _orthogonal(*self.directions.shape).to(self.directions)

    def _exponent(self, x: Tensor) -> Tensor:
        x = x * self.directions.shape[1] ** -0.25
        return x @ self.directions.to(x).transpose(0, 1) - x.square().sum(-1, keepdim=True) / 2


def _orthogonal(rows: int, size: int) -> Tensor:
    """(rows, size), from torch's generator: rows of length sqrt(size), in groups of ``size`` at right angles."""
    groups = []
    for _ in range(-(-rows // size)):
        q, r = torch.linalg.qr(torch.randn(size, size))
        groups.append((q * r.diagonal().sign()).transpose(0, 1))  # the signs make every direction as likely
    return torch.cat(groups)[:rows] * math.sqrt(size)


@register_attention("performer", options=PerformerOptions)
def performer(head_dim: int, options: PerformerOptions) -> nn.Module:
    """Positive random features that estimate softmax attention, FAVOR+ (arXiv 2009.14794)."""
    return LinearAttention(RandomFeatures(head_dim, options.features, options.redraw))
