"""The contract: what a mechanism is (``Mechanism``), and where the tokens of one call are (``Layout``)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mla_fairseq.attention.numerics import EPS
from mla_fairseq.attention.views import Prefix, View

Tensors = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the queries and keys of one call are in their streams, and which query sees which key.

    A model makes one for each attention site and forward, and every layer gets the same object. What depends on the
    layout alone (visibility, cosFormer's re-weighting mask) is computed by the first layer that asks (``once``) and
    freed with the layout, so that nothing outlives the forward.

    Attributes:
        view: which query sees which key.
        queries: consecutive positions (B or 1, T), int64; 0 is the first token of a stream.
        keys: positions (B or 1, S); under a view that goes in order, the same tensor as ``queries``.
        query_length, key_length: (B,) or (1,), the true or expected lengths in tokens that positions are measured
            against; ``None``: not known, which mechanisms with ``needs_lengths`` refuse.
        key_mask: (B, S), true for real keys, false for padding; ``None``: all are real. In ``Mechanism.write`` it may
            be (B, H, S), where monotonic heads have read to different states.

    Raises:
        ValueError: positions of another form, or a ``Prefix`` with another number of queries.
    """

    view: View
    queries: Tensor
    keys: Tensor
    query_length: Tensor | None = None
    key_length: Tensor | None = None
    key_mask: Tensor | None = None
    _made: dict[Hashable, Tensor | None] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name, places in (("queries", self.queries), ("keys", self.keys)):
            if places.dim() != 2 or places.is_floating_point():
                raise ValueError(
                    f"{name} must be int64 positions (B or 1, N), but are {places.dtype}, {tuple(places.shape)}"
                )
        queries = self.queries.shape[-1]
        if isinstance(self.view, Prefix) and self.view.lengths.shape[-1] != queries:
            raise ValueError(f"prefix lengths are for {self.view.lengths.shape[-1]} queries, but there are {queries}")

    @classmethod
    def whole(
        cls, view: View, queries: int, keys: int | None = None, *, query_length: Tensor | None = None,
        key_length: Tensor | None = None, key_mask: Tensor | None = None, device: torch.device | str | None = None,
    ) -> Layout:  # fmt: skip
        """Return the layout of a whole sequence. ``keys`` ``None``: self-attention, the queries' own tokens.

        Lengths that are not given are the numbers of real keys and, in cross-attention, of queries; ``keys`` that are
        given mean cross-attention, even if there are as many.
        """
        alone = keys is None
        if key_length is None:
            count = queries if alone else keys
            key_length = torch.full((1,), count, device=device) if key_mask is None else key_mask.sum(-1)
        if query_length is None:
            query_length = key_length if alone else torch.full((1,), queries, device=device)
        return cls.at(
            view, 0, queries, keys, query_length=query_length, key_length=key_length, key_mask=key_mask, device=device
        )

    @classmethod
    def at(
        cls, view: View, start: int | Tensor, queries: int = 1, keys: int | None = None, key_start: int | Tensor = 0, *,
        query_length: Tensor | None = None, key_length: Tensor | None = None, key_mask: Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> Layout:  # fmt: skip
        """Return the layout of the next tokens of streams, the first of which are at ``start``, an int or (B,).

        ``keys`` ``None``: self-attention, keys are the queries' tokens. Else they are others, from ``key_start`` on.

        Raises:
            ValueError: an int ``start`` inside a block of ``Blocks``.
        """
        if view.in_order and isinstance(start, int) and start % view.size:
            raise ValueError(f"under {view} a call starts at a block, but start is {start}")
        places = positions(start, queries, device)
        others = places if keys is None else positions(key_start, keys, device)
        return cls(view, places, others, query_length, key_length, key_mask)

    def tensors(self) -> list[Tensor]:
        """Return what has a stream as dim 0, of size B or 1, but for padding."""
        prefix = torch.atleast_2d(self.view.lengths) if isinstance(self.view, Prefix) else None
        given = (self.queries, self.keys, self.query_length, self.key_length, prefix)
        return [x for x in given if x is not None]

    def once(self, key: Hashable, make: Callable[[], Tensor | None]) -> Tensor | None:
        """Return ``make()``, called at most once for this ``key``."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def mask_padding(self, features: Tensor) -> Tensor:
        """Return features of keys (B, H, S, F) with zeros for padding: what is zero adds nothing to any sum."""
        if self.key_mask is None:
            return features
        return features * (self.key_mask if self.key_mask.dim() == 3 else self.key_mask.unsqueeze(1)).unsqueeze(-1)

    def visible(self, dtype: torch.dtype) -> Tensor | None:
        """Return which query sees which key as zeros and ones (B or 1, 1, T, S); ``None``: each sees all."""

        def make() -> Tensor | None:
            mask = self.view.visible(self.queries, self.keys)
            return None if mask is None else mask.unsqueeze(1).to(dtype)

        return self.once(("visible", dtype), make)

    def relative_queries(self, dtype: torch.dtype) -> Tensor:
        """Return the queries' min(i / length, 1), (B or 1, 1, T), i from 1 as in the papers.

        Beyond the expected length a position stays at the end: an angle past pi/2 would make weights negative. Raises
        ValueError where the length is not known.
        """
        return _relative(self.queries, self.query_length, dtype)

    def relative_keys(self, dtype: torch.dtype) -> Tensor:
        """Return the keys' min(i / length, 1), (B or 1, 1, S). Raises ValueError where the length is not known."""
        return _relative(self.keys, self.key_length, dtype)


def positions(start: int | Tensor, length: int, device: torch.device | str | None = None) -> Tensor:
    """Return the positions start .. start + length - 1, (1, length), or (B, length) where ``start`` is (B,)."""
    if isinstance(start, Tensor):
        return start.reshape(-1, 1) + torch.arange(length, device=start.device)
    return torch.arange(start, start + length, device=device).unsqueeze(0)


def _relative(places: Tensor, length: Tensor | None, dtype: torch.dtype) -> Tensor:
    if length is None:
        raise ValueError("this mechanism has positions: give the layout query and key lengths")
    return ((places + 1).to(dtype) / length.clamp_min(1).unsqueeze(-1)).clamp_max(1.0).unsqueeze(1)


class Mechanism(nn.Module, ABC):
    """How queries attend to keys: everything that the package calls, and what a mechanism can do.

    Queries are (B, H, T, d), keys (B, H, S, d), values (B, H, S, D), outputs (B, H, T, D), in float32 or float64
    unless ``half_precision``. Parameters may have been cast to half precision: ``numerics.linear`` applies a layer in
    the dtype of its input. A state is a dict of tensors whose dim 0 is the stream; it is returned and never changed
    in place, and ``{}`` is a fresh stream. All forms give the same outputs and gradients.

    Class attributes (an instance may override them):
        needs_lengths: positions are measured against lengths, which must be known before the first key is written.
        in_order: follows only views that go forward (``Causal``, ``Blocks``), so no cross-attention.
        window: can follow a view with a limited past.
        constant_state: the state does not grow with the keys.
        half_precision: takes q, k and v in half precision and under autocast.
        eps: smallest sum of ``scores`` that counts as having seen a key.
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

        A decoding step is T = S = 1; without new keys, ``read``. Calls under ``Blocks`` start at a block.
        """

    @abstractmethod
    def write(self, state: Tensors, k: Tensor, v: Tensor, layout: Layout) -> Tensors:
        """Return the state after these keys and values; ``layout.queries`` is not looked at."""

    @abstractmethod
    def read(self, state: Tensors, q: Tensor, layout: Layout) -> Tensor:
        """Return the outputs of queries that see all that was written; ``layout.keys`` is not looked at.

        Raises:
            ValueError: nothing was written.
        """

    @abstractmethod
    def scores(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return weights (B, H, T, S) before normalization, at least 0 and zero for padded keys.

        Keys that are not visible may be zero already, or not yet.
        """

    def weights(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return normalized weights (B, H, T, S): rows sum to one, or to zero where nothing is seen."""
        scores, visible = self.scores(q, k, layout), layout.visible(q.dtype)
        scores = scores if visible is None else scores * visible
        return scores / scores.sum(-1, keepdim=True).clamp_min(self.eps)

    def surrogate_weights(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return ``weights`` for a loss on them, with a gradient also where a query shares no feature with any key."""
        return self.weights(q, k, layout)

    def check(self, layout: Layout) -> None:
        """Refuse a layout that this mechanism cannot follow.

        Raises:
            ValueError: a limited past, or a view that does not go in order, where the state cannot give it; keys with
                positions of their own under a view that goes in order.
        """
        view = layout.view
        if self.in_order and not view.in_order:
            raise ValueError(
                f"attention that fades takes tokens in order, so it cannot follow {view}: use it in the decoder's "
                "self-attention, or in a chunked encoder (--encoder-chunk-size)"
            )
        if view.reach is not None and not self.window:
            raise ValueError(
                f"a linear mechanism cannot forget, so it cannot follow {view}: use softmax or drop the window"
            )
        if view.in_order and layout.keys is not layout.queries:
            raise ValueError(f"under {view} keys are the queries' own tokens: make the layout without a number of keys")
