"""Convolutions over time as one product, which quantisers see, unlike a convolution."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mla_fairseq.edge.subsample import as_linear

Module = TypeVar("Module", bound=nn.Module)


class RowConvolution(nn.Module):
    """A convolution of stride 1 over the rows of (n, C), without padding: (n, C) -> (n + 1 - width, C').

    Args:
        convolution: over time.
        norm: a batch norm after it, which is folded in; ``None``: none.
    """

    def __init__(self, convolution: nn.Conv1d, norm: nn.BatchNorm1d | None = None) -> None:
        super().__init__()
        self.width, self.channels = convolution.kernel_size[0], convolution.in_channels
        self.product = as_linear(convolution if norm is None else fuse_conv_bn_eval(convolution, norm))

    def forward(self, x: Tensor) -> Tensor:
        count = int(x.shape[0]) + 1 - self.width
        rows = torch.arange(count).unsqueeze(1) + torch.arange(self.width)
        return self.product(x.index_select(0, rows.flatten()).reshape(count, -1))


class PaddedConvolution(nn.Module):
    """``nn.Conv1d`` of stride 1 for one utterance, (1, C, T) -> (1, C', T), as a product; arguments as above."""

    def __init__(self, convolution: nn.Conv1d, norm: nn.BatchNorm1d | None = None) -> None:
        super().__init__()
        self.rows, self.padding = RowConvolution(convolution, norm), int(convolution.padding[0])

    def forward(self, x: Tensor) -> Tensor:
        rows = F.pad(x[0].transpose(0, 1), (0, 0, self.padding, self.padding))
        return self.rows(rows).transpose(0, 1).unsqueeze(0)


def with_products(module: Module) -> Module:
    """Return a copy in evaluation mode whose convolutions over time are products, for one utterance."""
    module = deepcopy(module).eval()
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv1d):
                setattr(parent, name, PaddedConvolution(child))
    return module
