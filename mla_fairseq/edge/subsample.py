"""Convolutional subsamplers as functions of flat tensors: gathered windows, and one product for each convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.step import part, prefixed
from mla_fairseq.speech.subsample import Conv1dSubsampler, Conv2dSubsampler, halved


class Product(nn.Module):
    """A convolution of stride 2 as one product over gathered windows, which quantisers see as a product.

    A call takes ``rows`` new rows (a row has some bands of some channels), and gives half as many. Rows that a later
    call needs again are ``held``.

    Args:
        conv: over time, or over time and bands.
        rows: new rows of a call.
        bands: bands of a row.

    Attributes:
        held: rows before the new ones, zeros in a ``fresh`` state.
        behind: by how many rows the input is ahead: output j of a stream is complete with input 2 (j + 1) + behind - 1.
        bands: bands of an output.
    """

    windows: Tensor

    def __init__(self, conv: nn.Conv1d | nn.Conv2d, rows: int, bands: int) -> None:
        super().__init__()
        size, padding = conv.kernel_size[0], conv.kernel_size[0] // 2
        self.behind = max(0, size - 2 - padding)
        self.held = self.behind + padding
        over_bands, self.border = (conv.kernel_size[1], conv.kernel_size[1] // 2) if conv.weight.dim() == 4 else (1, 0)
        width = bands + 2 * self.border
        self.count, self.bands = rows // 2, (width - over_bands) // 2 + 1
        starts = 2 * (torch.arange(self.count).unsqueeze(1) * width + torch.arange(self.bands)).reshape(-1, 1)
        window = torch.arange(size).unsqueeze(1) * width + torch.arange(over_bands)
        self.register_buffer("windows", (starts + window.reshape(1, -1)).flatten(), persistent=False)
        self.linear = as_linear(conv)
        rows_held = torch.zeros(self.held, bands, conv.in_channels, dtype=conv.weight.dtype)
        self.fresh: Tensors = {"rows": rows_held} if self.held else {}

    def forward(self, rows: Tensor, held: Tensors) -> tuple[Tensor, Tensors]:
        """Return outputs (rows / 2, bands', channels') of rows (N, bands, channels), and the rows to hold."""
        known = torch.cat((held["rows"], rows)) if self.held else rows
        padded = F.pad(known, (0, 0, self.border, self.border)) if self.border else known
        gathered = padded.flatten(0, 1).index_select(0, self.windows)
        y = self.linear(gathered.reshape(-1, self.linear.in_features))
        return y.reshape(self.count, self.bands, -1), {"rows": known[2 * self.count :]} if self.held else {}


def as_linear(conv: nn.Conv1d | nn.Conv2d) -> nn.Linear:
    """Return the product of a convolution: inputs are windows, channels last."""
    weight = conv.weight.detach().flatten(2).transpose(1, 2).flatten(1)  # (O, I, K ..) -> (O, K I)
    linear = nn.Linear(weight.shape[1], len(weight), dtype=weight.dtype)
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    assert conv.bias is not None
    linear.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return linear


class Subsample(nn.Module):
    """A subsampler that takes ``4 size`` frames (two convolutions) and gives ``size`` states.

    Args:
        subsample: of the encoder.
        size: states of a call.
        features: features of a frame.

    Attributes:
        window: frames of a call.
        ahead: frames that must be known after those of a state.
        lead: states before the first one that a stream begins with, because the first call has only ``ahead`` frames.
        fresh: rows that the convolutions hold, zeros.
    """

    def __init__(self, subsample: Conv1dSubsampler | Conv2dSubsampler, size: int, features: int) -> None:
        super().__init__()
        self.sizes = subsample.kernel_sizes
        if any(kernel % 2 == 0 for kernel in self.sizes):
            raise ValueError(
                f"--conv-kernel-sizes {','.join(map(str, self.sizes))} has an even size, which gives a stream one more "
                "state at its end: train with odd sizes, such as 5,5"
            )
        self.window = size * 2 ** len(self.sizes)
        self.gated = isinstance(subsample, Conv1dSubsampler)
        convs = [layer for layer in subsample.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d)]
        bands, rows, products = 1 if self.gated else features, self.window, []
        for conv in convs:
            products.append(product := Product(conv, rows, bands))
            bands, rows = product.bands, rows // 2
        self.products = nn.ModuleList(products)
        self.out = None if isinstance(subsample, Conv1dSubsampler) else bands_last(subsample.out, bands)
        self.offsets = offsets([product.behind for product in products])
        self.ahead = self.offsets[0]
        self.lead = -(-self.ahead // self.window) * size
        self.fresh: Tensors = {}
        for i, product in enumerate(products):
            self.fresh |= prefixed(f"conv{i}", product.fresh)

    def forward(self, frames: Tensor, length: Tensor, first: Tensor, state: Tensors) -> tuple[Tensor, Tensor, Tensors]:
        """Return the next states (size, C), which of them are real (size,), and the next state.

        Args:
            frames: (window, F), the next ones; those before the stream or after its end are not used.
            length: (1,), frames of the whole stream.
            first: (1,), index of the first state.
            state: rows that the convolutions hold.
        """
        x = frames.unsqueeze(1 if self.gated else 2)
        held: Tensors = {}
        scales = [2 ** (len(self.sizes) - i) for i in range(len(self.sizes) + 1)]  # rows of a state: 4, 2, 1
        real = between(first * scales[0] + self.offsets[0], len(x), length)
        for i, product in enumerate(self.products):
            x, rows = product(x * real.to(x.dtype)[:, None, None], part(f"conv{i}", state))
            held |= prefixed(f"conv{i}", rows)
            x = F.glu(x, dim=-1) if self.gated else x.relu()
            length = halved(length, self.sizes[i])
            real = between(first * scales[i + 1] + self.offsets[i + 1], len(x), length)
        x = x.flatten(1)
        if self.out is not None:
            x = self.out(x)
        return x, real, held


def between(first: Tensor, count: int, length: Tensor) -> Tensor:
    """Return which of the indices first .. first + count - 1 are indices of a sequence of ``length``, (count,)."""
    index = first + torch.arange(count, device=first.device)
    return (index >= 0) & (index < length)


def offsets(behind: list[int]) -> list[int]:
    """Return by how many rows the input of each convolution, and last the output of all, is ahead of whole states."""
    found = [0]
    for rows in reversed(behind):
        found.insert(0, 2 * found[0] + rows)
    return found


def bands_last(linear: nn.Linear, bands: int) -> nn.Linear:
    """Return a layer for inputs (.., bands, channels) that does what ``linear`` does for (.., channels, bands)."""
    moved = nn.Linear(linear.in_features, linear.out_features, dtype=linear.weight.dtype)
    weight = linear.weight.detach().unflatten(1, (-1, bands)).transpose(1, 2).flatten(1)
    moved.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    moved.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return moved
