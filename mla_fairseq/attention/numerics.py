"""Numerical rules of every mechanism.

Features, states and divisions are float32 at least, also under half precision and autocast: a bfloat16 state stops
growing after some hundred frames. Normalizers are at least ``EPS``: below it, outputs shrink towards zero.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6


def work_dtype(x: Tensor) -> torch.dtype:
    """Return float32, or float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def full_precision(x: Tensor) -> AbstractContextManager:
    """Return a context without autocast."""
    device = x.device.type
    # entering ``torch.autocast`` costs as much as a small product: do so only if autocast is on
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return ``layer(x)`` in the dtype of ``x``, whatever dtype the layer was cast to."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def describe(x: object) -> str:
    """Return dtype and shape of a tensor, or the type of anything else, for an error message."""
    return f"{x.dtype}, {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
