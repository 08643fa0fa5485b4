"""Linear attention: a mechanism is a feature map (phi) and, if it has one, a position vector (psi)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mla_fairseq.attention import kernels
from mla_fairseq.attention.base import Layout, Mechanism, Tensors
from mla_fairseq.attention.numerics import EPS
from mla_fairseq.attention.registry import register_attention
from mla_fairseq.attention.views import Prefix

QUADRATIC_LIMIT = 1.4
"""The quadratic form is the faster one up to this many times the multiplications of the linear form: it has few large
products, the other many small ones (measured on a CPU, where the forms cross at 90 to 310 positions)."""


class LinearAttention(Mechanism):
    """weight(t, s) = (phi(q_t) . phi(k_s)) (psi_q(t) . psi_k(s)): MLA's modular form (arXiv 2304.08453).

    A subclass gives phi, in ``features`` or in ``query_features`` and ``key_features``: at least 0, so that weights are
    never negative, and without 1 / sqrt(d), which the normalizer would cancel. With ``query_positions`` and
    ``key_positions`` it gives psi too. The state is ``memory`` (B, H, M F, D + 1).

    Class attributes:
        position_size: M; it decides from which length on the linear form is used.
        fixed_positions: psi depends on the layout alone, not on parameters or options, so that all layers of a class
            share the mask that it makes with visibility. Not inherited: a subclass sets it again.
        chunk: positions that are attended quadratically in the linear form.
    """

    position_size: ClassVar[int] = 1
    fixed_positions: ClassVar[bool] = False
    chunk: int = 64

    def features(self, x: Tensor) -> Tensor:
        """Return phi (.., F) of queries or keys (.., d)."""
        raise TypeError(f"{type(self).__name__} must define features, or query_features and key_features")

    def query_features(self, q: Tensor) -> Tensor:
        """Return phi (B, H, T, F) of queries; what all features of a query have in common cancels."""
        return self.features(q)

    def key_features(self, k: Tensor) -> Tensor:
        """Return phi (B, H, S, F) of keys."""
        return self.features(k)

    def query_positions(self, q: Tensor, layout: Layout) -> Tensor | None:
        """Return psi (B or 1, H or 1, T, M) of queries with features ``q``; ``None``: no positions."""
        return None

    def key_positions(self, k: Tensor, layout: Layout) -> Tensor | None:
        """Return psi (B or 1, H or 1, S, M) of keys with features ``k``."""
        return None

    def parallel(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        q, k = self.query_features(q), layout.mask_padding(self.key_features(k))
        if self._quadratic_pays(q, k, v, layout):
            return kernels.quadratic(q, k, v, self._mask(q, k, layout))
        return self._linear(None, q, k, v, layout)[0]

    def advance(self, state: Tensors, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensors]:
        q, k = self.query_features(q), layout.mask_padding(self.key_features(k))
        output, memory = self._linear(state.get("memory"), q, k, v, layout)
        return output, {"memory": memory}

    def write(self, state: Tensors, k: Tensor, v: Tensor, layout: Layout) -> Tensors:
        k = layout.mask_padding(self.key_features(k))
        return {"memory": kernels.write(state.get("memory"), _fold(k, self.key_positions(k, layout)), v)}

    def read(self, state: Tensors, q: Tensor, layout: Layout) -> Tensor:
        if "memory" not in state:
            raise ValueError("this state is empty: write keys before reading it")
        q = self.query_features(q)
        return kernels.read(state["memory"], _fold(q, self.query_positions(q, layout)))

    def scores(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        q, k = self.query_features(q), layout.mask_padding(self.key_features(k))
        pq, pk = self._positions(q, k, layout)
        return q @ k.mT if pq is None else (q @ k.mT) * (pq @ pk.mT)

    def _linear(self, memory: Tensor | None, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return outputs and memory from features, in the form whose cost is linear in T and S."""
        pq, pk = self._positions(q, k, layout)
        q, k, view = _fold(q, pq), _fold(k, pk), layout.view
        if isinstance(view, Prefix):
            lengths = torch.atleast_2d(view.lengths) - layout.keys[:, :1]  # counted from the first key given here
            return kernels.prefix(q, k, v, lengths, memory, self.chunk)
        if view.in_order and q.shape[-2] > view.size:
            return kernels.chunked(q, k, v, memory, view.size, self.chunk)
        memory = kernels.write(memory, k, v)  # every query sees every key: a full view, one block, or a decoding step
        return kernels.read(memory, q), memory

    def _quadratic_pays(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> bool:
        """Compare multiplications per head; the linear form is quadratic inside a chunk."""
        queries, keys, features, values = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
        folded, tokens, chunk = features * self.position_size, queries + keys, self.chunk
        if isinstance(layout.view, Prefix):  # queries and keys in one sequence
            linear = tokens * (chunk * (folded + values) + 2 * folded * values)
        else:
            in_chunks = min(keys, chunk) * queries * (folded + values) if layout.view.in_order else 0
            linear = tokens * folded * values + in_chunks
        return queries * keys * (features + values) <= QUADRATIC_LIMIT * linear

    def _mask(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor | None:
        """Return psi_q . psi_k times visibility, (.., T, S), from features."""

        def make() -> Tensor | None:
            (pq, pk), visible = self._positions(q, k, layout), layout.visible(q.dtype)
            if pq is None:
                return visible
            return pq @ pk.mT if visible is None else (pq @ pk.mT) * visible

        return layout.once((type(self), q.dtype), make) if vars(type(self)).get("fixed_positions") else make()

    def _positions(self, q: Tensor, k: Tensor, layout: Layout) -> tuple[Tensor | None, Tensor | None]:
        pq, pk = self.query_positions(q, layout), self.key_positions(k, layout)
        if (pq is None) != (pk is None):
            raise TypeError(f"{type(self).__name__} must define both query_positions and key_positions, or neither")
        return pq, pk


@register_attention("relu")
class ReLUAttention(LinearAttention):
    """ReLU features without positions: MLA's simple attention (arXiv 2304.08453)."""

    def features(self, x: Tensor) -> Tensor:
        return x.relu()

    def surrogate_features(self, x: Tensor) -> Tensor:
        """Return phi(x) with a gradient of slope 1 where x < 0 too, if descent along it raises x."""
        return _SurrogateReLU.apply(x)

    def surrogate_weights(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return ``weights``, with a gradient that revives queries that have seen nearly nothing.

        A loss on weights, such as guided attention, stalls where a query shares no feature with any key: nothing is
        seen there, and no gradient leads back (observed in training within 200 updates). Values are exact, and so are
        the gradients of queries whose scores sum to more than ``SEEN`` and whose features are not zero.
        """
        q, k = self.surrogate_features(q), layout.mask_padding(self.surrogate_features(k))
        mask, scores = self._mask(q, k, layout), q @ k.mT
        scores = scores if mask is None else scores * mask
        total = scores.sum(-1, keepdim=True)
        share = scores / total.clamp_min(SEEN)
        return (scores / total.clamp_min(EPS)).detach() + (share - share.detach())


SEEN = 1.0
"""Scores of a query that sum to less count as nearly nothing seen; those of a fresh model sum to tens or hundreds."""


class _SurrogateReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * ((x > 0) | (gradient < 0))


def _fold(features: Tensor, positions: Tensor | None) -> Tensor:
    return features if positions is None else kernels.fold(features, positions)
