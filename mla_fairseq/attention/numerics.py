"""Numerical rules of every mechanism: what is computed in which precision, and how small a normalizer may be.

Features, states and divisions are float32 at least, under half precision and autocast too: a bfloat16 state stops
adding up after some hundred frames. A normalizer below ``EPS`` means that a query has seen nothing; it then gets zeros.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6


def work_dtype(x: Tensor) -> torch.dtype:
    """Return float32, or float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def full_precision(x: Tensor) -> AbstractContextManager:
    """Return a context without autocast; entering one costs as much as a small product, so only where it is on."""
    device = x.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return ``layer(x)`` in the dtype of ``x``, whatever the layer was cast to."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
