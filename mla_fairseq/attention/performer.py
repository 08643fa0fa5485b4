"""Performer: random features whose products estimate softmax's exponentials (FAVOR+)."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mla_fairseq.attention.linear import LinearAttention
from mla_fairseq.attention.registry import register_attention

LARGEST = 40.0  # logarithm of the largest feature of a key: sums over a million keys fit into float32
STABILIZER = 1e-4  # added to every feature, as in the reference implementation
MOST = 140  # channels of a head: a sum over a million keys, e^(70 + 14), fits into float32


@dataclass(frozen=True)
class PerformerOptions:
    """Number of random features, and how often they are drawn."""

    features: int = field(default=0, metadata={"help": "number of random features; 0: the head's size"})
    redraw: int = field(
        default=0,
        metadata={
            "help": "training updates between two draws of the features; 0: one draw. Average checkpoints of different "
            "draws only with mla-average"
        },
    )


@register_attention("performer", options=PerformerOptions)
class Performer(LinearAttention):
    """Positive random features that estimate softmax's exponentials (FAVOR+, arXiv 2009.14794).

    phi_i(x) = exp(w_i . x' - |x'|^2 / 2), x' = x / d^(1/4) (lemma 1): in expectation over w ~ N(0, I), phi(q) .
    phi(k) is exp(q . k / sqrt(d)). The w_i are orthogonal in groups of d and have the length sqrt(d) (section 2.4
    and appendix B: values a little below softmax's). They are drawn when the module is created, saved with it, and
    drawn again every ``redraw`` updates.

    The reference implementation shifts projections of a query by their maximum and those of keys by the maximum over
    all keys, and adds 1e-4 to every feature. A stream does not know all keys: here the shift is that of unit normal
    keys, four standard deviations of d^(1/4). Without these constants a few large features dominate: for d = 64 and
    unit normal queries and keys, the relative error of the output is 2.5; with them it is 0.8 (the plain mean of the
    values: 0.8; 256 features: 0.78; queries and keys half as long: 0.25).

    Raises:
        ValueError: a negative number of features or updates, or heads that are too large.
    """

    def __init__(self, head_dim: int, options: PerformerOptions = PerformerOptions()) -> None:
        super().__init__(head_dim)
        if head_dim > MOST:
            raise ValueError(f"performer heads must have at most {MOST} channels, but have {head_dim}: use more heads")
        if options.features < 0 or options.redraw < 0:
            raise ValueError(
                "--performer-features and --performer-redraw must be at least 0, but are "
                f"{options.features} and {options.redraw}"
            )
        self.redraw = options.redraw
        self.feature_size = options.features or head_dim
        self.directions: Tensor
        self.register_buffer("directions", _orthogonal(self.feature_size, head_dim))
        self.shift = max(0.0, LARGEST - head_dim / 2)
        self.key_stabilizer = STABILIZER * math.exp(4 * head_dim**0.25 + self.shift)

    def query_features(self, q: Tensor) -> Tensor:
        projected, norm = self._project(q)
        largest = projected.amax(-1, keepdim=True).detach()  # a factor of the query: it cancels
        return (projected - norm - largest).exp() + STABILIZER

    def key_features(self, k: Tensor) -> Tensor:
        projected, norm = self._project(k)
        return (projected - norm + self.shift).exp() + self.key_stabilizer

    def set_num_updates(self, num_updates: int) -> None:
        """Draw new features if ``num_updates`` is a multiple of ``redraw``."""
        if self.training and self.redraw and num_updates and num_updates % self.redraw == 0:
            self.directions = _orthogonal(*self.directions.shape).to(self.directions)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return w . x', (.., m), and |x'|^2 / 2, (.., 1)."""
        x = x * self.directions.shape[1] ** -0.25  # for q and k together 1 / sqrt(d)
        return x @ self.directions.to(x).mT, x.square().sum(-1, keepdim=True) / 2


def _orthogonal(rows: int, size: int) -> Tensor:
    """Draw (rows, size) random rows of length sqrt(size), orthogonal in groups of ``size``."""
    groups = []
    for _ in range(-(-rows // size)):
        q, r = torch.linalg.qr(torch.randn(size, size))
        groups.append((q * r.diagonal().sign()).transpose(0, 1))  # without the signs, QR prefers some directions
    return torch.cat(groups)[:rows] * math.sqrt(size)
