"""What layers share: they ask in turn for the same positions and counters, and a step of a stream is short."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


def is_plain(x: Tensor) -> bool:
    """Whether ``Unchanged`` can say of it that it has not changed."""
    return type(x) is Tensor and not x.is_inference() and not x.requires_grad


class Unchanged:
    """A tensor as a key: this very one, not written to since; writes that torch does not count (through ``.data`` or
    shared memory) go unseen."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.version = tensor._version

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unchanged) and self.tensor is other.tensor and self.version == other.version

    def __hash__(self) -> int:
        return id(self.tensor)


def shared(function: Callable[..., Tensor], x: Tensor, *rest: object) -> Tensor:
    """``function(x, *rest)``, from the layer before where that asked for the same: a step of a stream is short, and its
    layers count alike. The results may be in many states, which nobody changes in place."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or not is_plain(x):
        return function(x, *rest)
    return _remembered(function, Unchanged(x), *rest)


@lru_cache(maxsize=16)
def _remembered(function: Callable[..., Tensor], x: Unchanged, *rest: object) -> Tensor:
    return function(x.tensor, *rest)


def forget_shared() -> None:
    """Drop what layers share of a step, for clocks that time the same step again."""
    _remembered.cache_clear()
