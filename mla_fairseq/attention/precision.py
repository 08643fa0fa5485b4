"""What is computed in which precision: features, states and divisions never in less than float32, autocast or not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def full_precision(x: Tensor) -> AbstractContextManager:
    """Without autocast. To enter its context costs as much as a small product, so only where it is on."""
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def work_dtype(x: Tensor) -> torch.dtype:
    """float32, or float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)


def to(dtype: torch.dtype, x: Tensor) -> Tensor:
    """``x.to(dtype)``, which is an operation even where nothing is to be done: short sequences notice."""
    return x if x.dtype == dtype else x.to(dtype)


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """``layer(x)`` in the dtype of ``x``, whatever the layer was cast to."""
    return F.linear(x, to(x.dtype, layer.weight), to(x.dtype, layer.bias))
