"""Views: which query sees which key. A view depends on positions, not on contents or padding.

Every view has ``visible(queries, keys)``: it takes positions (.., T) and (.., S), counted from 0 over the whole stream,
and returns a boolean mask (.., T, S), or ``None`` if every query sees every key. Class attributes:

* ``in_order``: queries and keys are the same tokens, and none sees a later block;
* ``size``: tokens in a block, which see each other (1 for views without blocks);
* ``reach``: how many of the latest keys a later query can still see (``None``: all).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mla_fairseq.attention.numerics import describe


@dataclass(frozen=True)
class Full:
    """Every query sees every key: full-context encoders, offline cross-attention."""

    in_order: ClassVar[bool] = False
    size: ClassVar[int] = 1
    reach: ClassVar[None] = None

    def visible(self, queries: Tensor, keys: Tensor) -> None:
        return None


@dataclass(frozen=True)
class Causal:
    """Query t sees the keys up to t, or only the last ``window`` of them.

    Raises:
        ValueError: a window below 1.
    """

    window: int | None = None
    in_order: ClassVar[bool] = True
    size: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.window is not None and (not hasattr(self.window, "__index__") or self.window < 1):
            raise ValueError(f"the window of a causal view must be an int of at least 1, but is {self.window!r}")

    @property
    def reach(self) -> int | None:
        return None if self.window is None else self.window - 1  # the query's own key is not an earlier one

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        queries, keys = queries.unsqueeze(-1), keys.unsqueeze(-2)
        mask = keys <= queries
        return mask if self.window is None else mask & (keys > queries - self.window)


@dataclass(frozen=True)
class Blocks:
    """Blocks of ``size`` positions: a query sees its own block and the ``left`` blocks before it (-1: all of them).

    Raises:
        ValueError: a block size below 1, ``left`` below -1, or one that is not an int.
    """

    size: int
    left: int = -1
    in_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not all(hasattr(x, "__index__") for x in (self.size, self.left)) or self.size < 1 or self.left < -1:
            raise ValueError(f"blocks need int size >= 1, left >= -1, but have size {self.size} and left {self.left}")

    @property
    def reach(self) -> int | None:
        return None if self.left < 0 else self.left * self.size

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        ahead = (keys // self.size).unsqueeze(-2) - (queries // self.size).unsqueeze(-1)  # in blocks, not tokens
        mask = ahead <= 0
        return mask if self.left < 0 else mask & (ahead >= -self.left)


@dataclass(frozen=True, eq=False)
class Prefix:
    """Query t sees the first ``lengths[b, t]`` keys (wait-k: the encoder states available before target t).

    ``lengths``: (B, T), or (T,) for the whole batch, in keys, int64; they never decrease along T.

    Raises:
        ValueError: lengths that are not such a tensor, or that decrease.
    """

    lengths: Tensor
    in_order: ClassVar[bool] = False
    size: ClassVar[int] = 1
    reach: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not isinstance(x := self.lengths, Tensor) or x.dim() not in (1, 2) or x.dtype not in (torch.long, torch.int):
            raise ValueError(f"prefix lengths must be an int64 tensor (T,) or (B, T), but are {describe(self.lengths)}")
        if bool((self.lengths.diff(dim=-1) < 0).any()):
            raise ValueError("prefix lengths must not decrease from one query to the next")

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        return keys.unsqueeze(-2) < torch.atleast_2d(self.lengths).unsqueeze(-1)


View = Full | Causal | Blocks | Prefix
