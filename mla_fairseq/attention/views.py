"""Views: who sees whom. A view knows positions, nothing of contents; padding is not visibility.

``visible(queries, keys)`` takes positions (T,) and (S,), counted from 0 over the whole stream, and returns a boolean
mask broadcasting to (B, H, T, S), or ``None`` where every query sees every key. ``reach`` is how many of the latest
keys a later query can still see (``None``: all of them), so that a key-value state can be trimmed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Full:
    """Every query sees every key: bidirectional encoders, offline cross-attention."""

    reach: None = None

    def visible(self, queries: Tensor, keys: Tensor) -> None:
        return None


@dataclass(frozen=True)
class Causal:
    """Query t sees the keys up to t; of these only the last ``window`` if one is set.

    Raises:
        ValueError: a window below 1.
    """

    window: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"the window of a causal view must be at least 1, but is {self.window}")

    @property
    def reach(self) -> int | None:
        return None if self.window is None else self.window - 1

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        queries = queries.unsqueeze(-1)
        mask = keys <= queries
        return mask if self.window is None else mask & (keys > queries - self.window)


@dataclass(frozen=True)
class Blocks:
    """Positions in blocks of ``size``: all of the own block and of ``left`` blocks before it (-1: all before it).

    Raises:
        ValueError: a block size below 1, or ``left`` below -1.
    """

    size: int
    left: int = -1

    def __post_init__(self) -> None:
        if self.size < 1 or self.left < -1:
            raise ValueError(f"blocks need size >= 1 and left >= -1, but have size {self.size} and left {self.left}")

    @property
    def reach(self) -> int | None:
        return None if self.left < 0 else self.left * self.size

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        ahead = keys // self.size - (queries // self.size).unsqueeze(-1)
        mask = ahead <= 0
        return mask if self.left < 0 else mask & (ahead >= -self.left)


@dataclass(frozen=True, eq=False)
class Prefix:
    """Query t sees the first ``lengths[b, t]`` keys (wait-k: the encoder states read before target t is written).

    ``lengths``: (B, T), or (T,) for the whole batch, in keys, never falling along T.

    Raises:
        ValueError: lengths of another shape, or lengths that fall.
    """

    lengths: Tensor
    reach: None = None

    def __post_init__(self) -> None:
        if self.lengths.dim() not in (1, 2):
            raise ValueError(f"prefix lengths must be (T,) or (B, T), but have shape {tuple(self.lengths.shape)}")
        if bool((self.lengths.diff(dim=-1) < 0).any()):
            raise ValueError("prefix lengths must not fall from one query to the next")

    def check(self, batch: int, queries: int) -> None:
        """Raise ValueError unless there is one length for each query of each stream, or of all streams."""
        if self.lengths.shape not in ((queries,), (1, queries), (batch, queries)):
            shape = tuple(self.lengths.shape)
            raise ValueError(f"prefix lengths must be ({queries},) or ({batch}, {queries}) here, but are {shape}")

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        mask = keys < self.lengths.unsqueeze(-1)
        return mask if mask.dim() == 2 else mask.unsqueeze(1)


View = Full | Causal | Blocks | Prefix


def span(start: int, length: int, device: torch.device) -> Tensor:
    """Positions start .. start + length - 1."""
    return torch.arange(start, start + length, device=device)
