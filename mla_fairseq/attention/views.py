"""Views: which query sees which key. A view knows positions, not contents; padding is not visibility.

``visible(queries, keys)`` takes positions (.., T) and (.., S), counted from 0 over the whole stream, and returns a
boolean mask (.., T, S), or ``None`` where every query sees every key. ``reach`` is how many of the latest keys a later
query can still see (``None``: all), ``in_order`` whether queries and keys are the same tokens and none sees a later
block, and ``size`` then the tokens of a block, which see each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Full:
    """Every query sees every key: bidirectional encoders, offline cross-attention."""

    in_order = False
    reach = None

    def visible(self, queries: Tensor, keys: Tensor) -> None:
        return None


@dataclass(frozen=True)
class Causal:
    """Query t sees the keys up to t; of these only the last ``window`` if one is set.

    Raises:
        ValueError: a window below 1.
    """

    window: int | None = None
    in_order = True
    size = 1

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"the window of a causal view must be at least 1, but is {self.window}")

    @property
    def reach(self) -> int | None:
        return None if self.window is None else self.window - 1

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        queries, keys = queries.unsqueeze(-1), keys.unsqueeze(-2)
        mask = keys <= queries
        return mask if self.window is None else mask & (keys > queries - self.window)


@dataclass(frozen=True)
class Blocks:
    """Blocks of ``size`` positions: a query sees its own block and ``left`` blocks before it (-1: all before it).

    Raises:
        ValueError: a block size below 1, or ``left`` below -1.
    """

    size: int
    left: int = -1
    in_order = True

    def __post_init__(self) -> None:
        if self.size < 1 or self.left < -1:
            raise ValueError(f"blocks need size >= 1 and left >= -1, but have size {self.size} and left {self.left}")

    @property
    def reach(self) -> int | None:
        return None if self.left < 0 else self.left * self.size

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        ahead = (keys // self.size).unsqueeze(-2) - (queries // self.size).unsqueeze(-1)
        mask = ahead <= 0
        return mask if self.left < 0 else mask & (ahead >= -self.left)


@dataclass(frozen=True, eq=False)
class Prefix:
    """Query t sees the first ``lengths[b, t]`` keys (wait-k: encoder states read before target t is emitted).

    ``lengths``: (B, T), or (T,) for the whole batch, in keys, never decreasing along T.

    Raises:
        ValueError: lengths of another shape, or lengths that decrease.
    """

    lengths: Tensor
    in_order = False
    reach = None

    def __post_init__(self) -> None:
        if not isinstance(self.lengths, Tensor) or self.lengths.dim() not in (1, 2):
            shape = tuple(getattr(self.lengths, "shape", ()))
            raise ValueError(f"prefix lengths must be a tensor (T,) or (B, T), but have shape {shape}")
        if self.lengths.is_floating_point():
            raise ValueError(f"prefix lengths must be int64, but are {self.lengths.dtype}")
        if bool((self.lengths.diff(dim=-1) < 0).any()):
            raise ValueError("prefix lengths must not decrease from one query to the next")

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        return keys.unsqueeze(-2) < torch.atleast_2d(self.lengths).unsqueeze(-1)


View = Full | Causal | Blocks | Prefix
