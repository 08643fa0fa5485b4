"""Linear attention: a mechanism is a feature map (phi) and, if it has positions, a position vector (psi)."""

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
"""The quadratic form is faster up to this many times the multiplications of the linear form: it has few large products,
the linear form many small ones (measured on a CPU, where the two forms cross at 90 to 310 positions)."""

SEEN = 1.0  # a smaller sum of scores counts as almost nothing seen; a new model has tens or hundreds


class LinearAttention(Mechanism):
    """weight(t, s) = (phi(q_t) . phi(k_s)) (psi_q(t) . psi_k(s)): MLA's modular form (arXiv 2304.08453).

    A subclass defines phi, by ``features`` or by ``query_features`` and ``key_features``: at least 0, so that weights
    are never negative, and without 1 / sqrt(d), which the normalizer would cancel. It may define psi, by
    ``query_positions`` and ``key_positions``. The state is ``memory`` (B, H, M F, D + 1).

    Attributes:
        feature_size: F, by default the head's size.
        position_size: M. Both decide from which length on the linear form is used.
        fixed_positions: psi depends on the layout alone, not on parameters or options, so that all layers of a class
            share the product of psi and visibility. Not inherited: a subclass sets it again.
        chunk: positions that are attended quadratically in the linear form.

    Raises:
        TypeError: a subclass that defines positions for one side only.
    """

    position_size: ClassVar[int] = 1
    fixed_positions: ClassVar[bool] = False
    chunk: int = 64

    def __init__(self, head_dim: int, options: Any = None) -> None:
        super().__init__(head_dim)
        self.feature_size = head_dim

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = ("query_positions", "key_positions")
        if sum(getattr(cls, name) is getattr(LinearAttention, name) for name in names) == 1:
            raise TypeError(f"{cls.__name__} must define both query_positions and key_positions, or neither")

    def features(self, x: Tensor) -> Tensor:
        """Return phi (.., F) of queries or keys (.., d)."""
        raise TypeError(f"{type(self).__name__} must define features, or query_features and key_features")

    def query_features(self, q: Tensor) -> Tensor:
        """Return phi (B, H, T, F) of queries; a factor that all features of a query share cancels."""
        return self.features(q)

    def key_features(self, k: Tensor) -> Tensor:
        """Return phi (B, H, S, F) of keys."""
        return self.features(k)

    def query_positions(self, q: Tensor, layout: Layout) -> Tensor | None:
        """Return psi (B or 1, H or 1, T, M) of queries with features ``q``; ``None``: no positions."""
        return None

    def key_positions(self, k: Tensor, layout: Layout) -> Tensor | None:
        """Return psi (B or 1, H or 1, S, M) of keys with features ``k``; ``None``: no positions."""
        return None

    def parallel(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        if not self._quadratic_pays(q, k, v, layout):
            return self.advance({}, q, k, v, layout)[0]
        q, k = self.query_features(q), layout.mask_padding(self.key_features(k))
        return kernels.quadratic(q, k, v, self._mask(q, k, layout))

    def advance(self, state: Tensors, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensors]:
        q, k = self.query_features(q), layout.mask_padding(self.key_features(k))
        q = kernels.fold(q, self.query_positions(q, layout))
        k = kernels.fold(k, self.key_positions(k, layout))
        view, memory = layout.view, state.get("memory")
        if isinstance(view, Prefix):
            lengths = torch.atleast_2d(view.lengths) - layout.keys[:, :1]  # counted from the first key of this call
            output, memory = kernels.prefix(q, k, v, lengths, memory, self.chunk)
        elif view.in_order and q.shape[-2] > view.size:
            output, memory = kernels.chunked(q, k, v, memory, view.size, self.chunk)
        else:  # every query sees every key: a decoding step, one block, or a full view
            memory = kernels.write(memory, k, v)
            output = kernels.normalize(q @ memory)
        return output, {"memory": memory}

    def write(self, state: Tensors, k: Tensor, v: Tensor, layout: Layout) -> Tensors:
        k = layout.mask_padding(self.key_features(k))
        k = kernels.fold(k, self.key_positions(k, layout))
        return {"memory": kernels.write(state.get("memory"), k, v)}

    def read(self, state: Tensors, q: Tensor, layout: Layout) -> Tensor:
        if "memory" not in state:
            raise ValueError("this state is empty: write keys before reading it")
        q = self.query_features(q)
        return kernels.normalize(kernels.fold(q, self.query_positions(q, layout)) @ state["memory"])

    def scores(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        q, k = self.query_features(q), layout.mask_padding(self.key_features(k))
        near = self._near(q, k, layout)
        return q @ k.mT if near is None else (q @ k.mT) * near

    def _near(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor | None:
        """Return psi_q . psi_k, (B or 1, H or 1, T, S), from features; ``None``: no positions."""
        q_psi, k_psi = self.query_positions(q, layout), self.key_positions(k, layout)
        return None if q_psi is None or k_psi is None else q_psi @ k_psi.mT

    def _mask(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor | None:
        """Return psi_q . psi_k times visibility, (.., T, S), from features."""

        def make() -> Tensor | None:
            near, visible = self._near(q, k, layout), layout.visible(q.dtype)
            if near is None or visible is None:
                return visible if near is None else near
            return near * visible

        # ``vars``, not ``self.fixed_positions``: a subclass must not inherit it
        return layout.once((type(self), q.dtype), make) if vars(type(self)).get("fixed_positions") else make()

    def _quadratic_pays(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> bool:
        """Compare multiplications per head; the linear form is quadratic inside a chunk."""
        queries, keys, values = q.shape[-2], k.shape[-2], v.shape[-1]
        folded, tokens, chunk = self.feature_size * self.position_size, queries + keys, self.chunk
        if isinstance(layout.view, Prefix):  # queries and keys form one sequence
            linear = tokens * (chunk * (folded + values) + 2 * folded * values)
        else:
            in_chunks = min(keys, chunk) * queries * (folded + values) if layout.view.in_order else 0
            linear = tokens * folded * values + in_chunks
        return queries * keys * (self.feature_size + values) <= QUADRATIC_LIMIT * linear


@register_attention("relu")
class ReLUAttention(LinearAttention):
    """ReLU features without positions: MLA's simple attention (arXiv 2304.08453)."""

    def features(self, x: Tensor) -> Tensor:
        return x.relu()

    def surrogate_features(self, x: Tensor) -> Tensor:
        """Return phi(x), with a gradient of slope 1 also where x < 0 if descent along it raises x."""
        return _SurrogateReLU.apply(x)

    def surrogate_weights(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return ``weights``, with a gradient that revives queries that see almost nothing.

        A loss on weights, such as guided attention, stalls if a query shares no feature with any key: it sees nothing,
        and no gradient leads back (observed in training within 200 updates). Values are exact, and so are the gradients
        of queries whose scores sum to more than ``SEEN`` and whose features are not zero.
        """
        q, k = self.surrogate_features(q), layout.mask_padding(self.surrogate_features(k))
        mask, scores = self._mask(q, k, layout), q @ k.mT
        scores = scores if mask is None else scores * mask
        total = scores.sum(-1, keepdim=True)
        share = scores / total.clamp_min(SEEN)  # a larger divisor keeps the gradient of a tiny total finite
        return (scores / total.clamp_min(EPS)).detach() + (share - share.detach())  # exact value, gradient of ``share``


class _SurrogateReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * ((x > 0) | (gradient < 0))  # descent raises x where its gradient is negative
