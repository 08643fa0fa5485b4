"""The interface: what a mechanism is (``Mechanism``), and where the tokens of one call are (``Layout``)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from mla_fairseq.attention.numerics import EPS, describe
from mla_fairseq.attention.views import Prefix, View

Tensors = dict[str, Tensor]
Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the queries and keys of one call are in their streams, and which query sees which key.

    A model makes one for each attention site and forward pass, and every layer gets the same object. What depends on
    the layout alone (visibility, cosFormer's re-weighting mask) is computed by the first layer that needs it (``once``)
    and freed with the layout.

    Attributes:
        view: which query sees which key.
        queries: consecutive positions (B or 1, T), int64; 0 is the first token of a stream.
        keys: consecutive positions (B or 1, S); under a view in order, the same tensor as ``queries``.
        query_length, key_length: (B,) or (1,), lengths in tokens, true or expected, for relative positions.
        key_mask: (B, S), true for real keys; ``None``: no padding. For ``write`` also (B, H, S), with monotonic heads.
        consecutive: positions need no check, which would wait for a GPU.

    Raises:
        ValueError: an argument of a wrong type or shape, or positions that are not consecutive.
    """

    view: View
    queries: Tensor
    keys: Tensor
    query_length: Tensor | None = None
    key_length: Tensor | None = None
    key_mask: Tensor | None = None
    consecutive: bool = field(default=False, repr=False)
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, places in (("queries", self.queries), ("keys", self.keys)):
            if not isinstance(places, Tensor) or places.dim() != 2 or places.is_floating_point():
                raise ValueError(f"{name} must be int64 positions (B or 1, N), but are {describe(places)}")
            if not self.consecutive and bool((places.diff(dim=-1) != 1).any()):
                raise ValueError(f"{name} must be consecutive positions, but are not: make them with Layout.at")
        for name, length in (("query_length", self.query_length), ("key_length", self.key_length)):
            if length is not None and not (isinstance(length, Tensor) and length.dim() == 1):
                raise ValueError(f"{name} must be a tensor (B,) or (1,), but is {describe(length)}")
        queries = self.queries.shape[-1]
        if isinstance(self.view, Prefix) and self.view.lengths.shape[-1] != queries:
            raise ValueError(f"prefix lengths are for {self.view.lengths.shape[-1]} queries, but there are {queries}")

    @classmethod
    def whole(
        cls, view: View, queries: int, keys: int | None = None, *, query_length: Tensor | None = None,
        key_length: Tensor | None = None, key_mask: Tensor | None = None, device: torch.device | str | None = None,
    ) -> Layout:  # fmt: skip
        """Return the layout of a whole sequence: self-attention without ``keys``, cross-attention with their number.

        By default, lengths are the numbers of real keys and, in cross-attention, of queries.
        """
        if key_length is None:
            count = queries if keys is None else keys
            key_length = torch.full((1,), count, device=device) if key_mask is None else key_mask.sum(-1)
        if query_length is None:
            query_length = key_length if keys is None else torch.full((1,), queries, device=device)
        return cls.at(
            view, 0, queries, keys, query_length=query_length, key_length=key_length, key_mask=key_mask, device=device
        )

    @classmethod
    def at(
        cls, view: View, start: int | Tensor, queries: int = 1, keys: int | None = None, key_start: int | Tensor = 0, *,
        query_length: Tensor | None = None, key_length: Tensor | None = None, key_mask: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Layout:  # fmt: skip
        """Return the layout of the next tokens of streams, from ``start`` on: an int or (B,).

        Without ``keys``, keys are the queries' tokens; with their number, other tokens from ``key_start`` on.

        Raises:
            ValueError: an int ``start`` inside a block of ``Blocks``.
            TypeError: a ``view`` that is not a view.
        """
        if not isinstance(view, View):
            raise TypeError(f"view must be Causal(), Full(), Blocks(..) or Prefix(..), but is {view!r}")
        q_places = positions(start, queries, device)
        if not isinstance(start, Tensor) and start % view.size:
            raise ValueError(f"under {view} a call starts at a block, but start is {start}")
        k_places = q_places if keys is None else positions(key_start, keys, device)
        return cls(view, q_places, k_places, query_length, key_length, key_mask, consecutive=True)

    @cached_property
    def streams(self) -> set[int]:
        """Sizes of dim 0 of all tensors except ``key_mask``: B, or 1 for a tensor that all streams share."""
        prefix = torch.atleast_2d(self.view.lengths) if isinstance(self.view, Prefix) else None
        given = (self.queries, self.keys, self.query_length, self.key_length, prefix)
        return {x.shape[0] for x in given if x is not None}

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return ``make()``, called at most once for this ``key``."""
        key = (key, torch.is_inference_mode_enabled())  # autograd cannot save what was made in inference mode
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def mask_padding(self, features: Tensor) -> Tensor:
        """Return features of keys (B, H, S, F) with zeros for padding: zero features add nothing to any sum."""
        if self.key_mask is None:
            return features
        mask = self.key_mask if self.key_mask.dim() == 3 else self.key_mask.unsqueeze(1)
        return features * mask.unsqueeze(-1).to(features.dtype)  # a copy: the mask may be from inference mode

    def visible(self, dtype: torch.dtype, stored: int | None = None) -> Tensor | None:
        """Return which query sees which key as zeros and ones (B or 1, 1, T, S); ``None``: each sees all.

        ``stored``: consider as many keys as a state has, the last of which are the layout's.
        """

        def make() -> Tensor | None:
            keys = self.keys if stored is None else self.keys[:, -1:] + positions(1 - stored, stored, self.keys.device)
            mask = self.view.visible(self.queries, keys)
            return None if mask is None else mask.unsqueeze(1).to(dtype)

        return self.once(("visible", dtype, stored), make)

    def relative_queries(self, dtype: torch.dtype) -> Tensor:
        """Return min(i / length, 1) of the queries, (B or 1, 1, T), with i from 1 as in the papers."""
        return _relative(self.queries, self.query_length, dtype)

    def relative_keys(self, dtype: torch.dtype) -> Tensor:
        """Return min(i / length, 1) of the keys, (B or 1, 1, S)."""
        return _relative(self.keys, self.key_length, dtype)


def positions(start: int | Tensor, length: int, device: torch.device | str | None = None) -> Tensor:
    """Return the positions start .. start + length - 1: (1, length), or (B, length) if ``start`` is (B,).

    Raises:
        ValueError: a ``start`` that is neither an int nor a tensor.
    """
    if isinstance(start, Tensor):
        return start.reshape(-1, 1) + torch.arange(length, device=start.device)
    if not hasattr(start, "__index__") or getattr(start, "ndim", False):  # numpy's integers have it too, and its arrays
        raise ValueError(f"start must be an int or a tensor (B,), but is {start!r}")
    return torch.arange(start, start + length, device=device).unsqueeze(0)


def _relative(places: Tensor, length: Tensor | None, dtype: torch.dtype) -> Tensor:
    if length is None:
        raise ValueError("the layout has no lengths: set needs_lengths = True in the mechanism, or give both lengths")
    share = (places + 1).to(dtype) / length.clamp_min(1).unsqueeze(-1)
    return share.clamp_max(1.0).unsqueeze(1)  # a share above 1 would give angles above pi/2, and negative weights


class Mechanism(nn.Module, ABC):
    """How queries attend to keys: all methods that the package calls, and what a mechanism supports.

    Queries are (B, H, T, d), keys (B, H, S, d), values (B, H, S, D), outputs (B, H, T, D), in float32 or float64
    unless ``half_precision``. Parameters may have been cast to half precision: ``numerics.linear`` applies a layer in
    the dtype of its input. All methods give the same outputs and gradients.

    ``write`` and ``read`` are the two operations on a mechanism's recurrent state: add keys and values, and attend to
    all that was added. A state is a dict of tensors whose dim 0 is the stream; it is returned, never changed in place,
    and ``{}`` is the state of a fresh stream.

    Class attributes (an instance may override them):
        needs_lengths: positions are measured against lengths, which must be known before the first key is written.
        in_order: supports only views in order (``Causal``, ``Blocks``), so no cross-attention.
        window: supports views with a limited past.
        constant_state: the state does not grow with the keys.
        half_precision: takes q, k and v in half precision and under autocast.
        eps: smallest divisor: where ``scores`` sum to less, the output shrinks towards zero.
    """

    needs_lengths: ClassVar[bool] = False
    in_order: ClassVar[bool] = False
    window: ClassVar[bool] = False
    constant_state: ClassVar[bool] = True
    half_precision: ClassVar[bool] = False
    eps: ClassVar[float] = EPS

    def __init__(self, head_dim: int, options: Any = None) -> None:
        super().__init__()

    @abstractmethod
    def parallel(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        """Return the outputs of a whole sequence."""

    @abstractmethod
    def advance(self, state: Tensors, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensors]:
        """Return the outputs of the next T queries given S >= 1 new keys, and the state after both.

        A decoding step has T = S = 1; without new keys call ``read``. Under ``Blocks`` a call starts at a block.
        """

    @abstractmethod
    def write(self, state: Tensors, k: Tensor, v: Tensor, layout: Layout) -> Tensors:
        """Return the state after these keys and values; ``layout.queries`` is not used."""

    @abstractmethod
    def read(self, state: Tensors, q: Tensor, layout: Layout) -> Tensor:
        """Return the outputs of queries that see all written keys; ``layout.keys`` is not used.

        Raises:
            ValueError: nothing was written.
        """

    @abstractmethod
    def scores(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return weights (B, H, T, S) before normalization, at least 0 and zero for padded keys.

        Keys that are not visible may already be zero, or not yet.
        """

    def weights(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return normalized weights (B, H, T, S): a row sums to one, or less if scores sum to less than ``eps``."""
        scores, visible = self.scores(q, k, layout), layout.visible(q.dtype)
        scores = scores if visible is None else scores * visible
        return scores / scores.sum(-1, keepdim=True).clamp_min(self.eps)

    def surrogate_weights(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return ``weights`` for a loss on them, with a gradient even if a query shares no feature with any key."""
        return self.weights(q, k, layout)

    def check(self, layout: Layout) -> None:
        """Refuse a layout that this mechanism does not support.

        Raises:
            ValueError: its view, or keys that are not the queries' tokens under a view in order.
        """
        view = layout.view
        if self.in_order and not view.in_order:
            raise ValueError(
                f"a mechanism with decay needs tokens in order, so it cannot follow {view}: use it in the decoder, or "
                "in a chunked encoder (--encoder-chunk-size)"
            )
        if view.reach is not None and not self.window:
            raise ValueError(f"a linear mechanism cannot forget, so it cannot follow {view}: use softmax, or no window")
        if view.in_order and layout.keys is not layout.queries:
            raise ValueError(f"under {view} keys are the queries' tokens: make the layout without a number of keys")
