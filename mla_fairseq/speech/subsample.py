"""Convolutional subsamplers before the encoder: four frames of 10 ms become one encoder state of 40 ms.

Both mask padding between their convolutions, so that a sentence in a padded batch gives the same states as alone and in
a stream. fairseq's subsamplers do not; on unpadded input the results and the parameter names are the same.

``stream`` takes the next frames (B, N, F), N >= 0, and the frames ``held`` by the previous call (``{}`` at first). It
returns the states that are complete now, (n, B, C), and the frames to hold. A state is complete when the windows of all
its convolutions are; ``final`` pads the last windows on the right, as the parallel pass does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def halved(lengths: Tensor, kernel_size: int) -> Tensor:
    """Return the lengths after a convolution of stride 2, padded by ``kernel_size // 2`` on both sides."""
    return (lengths + 2 * (kernel_size // 2) - kernel_size) // 2 + 1


def real_frames(lengths: Tensor, frames: int) -> Tensor:
    """Return a mask (B, frames), true for real frames."""
    return torch.arange(frames, device=lengths.device) < lengths.unsqueeze(-1)


def frames_before(kernel_sizes: Sequence[int], states: int) -> int:
    """Return how many frames must have arrived before the first ``states`` states are complete."""
    for size in reversed(kernel_sizes):
        states = 2 * (states - 1) + size - size // 2  # the window of the last one, minus the padding on the left
    return states


def _window(x: Tensor, held: Tensor | None, size: int, final: bool) -> tuple[Tensor | None, Tensor]:
    """Return the input (B, C, N, ..) of all complete windows of a convolution of stride 2, and what to hold.

    The input is ``None`` if no window is complete.
    """
    padding = x.new_zeros(*x.shape[:2], size // 2, *x.shape[3:])
    x = torch.cat([padding if held is None else held, x] + [padding] * bool(final), dim=2)
    outputs = max(0, (x.shape[2] - size) // 2 + 1)
    seen = x[:, :, : 2 * (outputs - 1) + size] if outputs else None
    return seen, x[:, :, 2 * outputs :].clone()  # a view would keep all of x in memory


class Conv1dSubsampler(nn.Module):
    """Convolutions over time with gated linear units (Synnaeve et al. 2019, arXiv 1911.08460).

    Args:
        in_channels: features per frame.
        mid_channels: channels between the convolutions, before the gate halves them.
        out_channels: channels of a state.
        kernel_sizes: kernel size of each convolution, which has stride 2.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        self.kernel_sizes = tuple(kernel_sizes)
        inputs = [in_channels] + [mid_channels // 2] * (len(kernel_sizes) - 1)
        outputs = [mid_channels] * (len(kernel_sizes) - 1) + [out_channels * 2]
        sizes = zip(inputs, outputs, kernel_sizes, strict=True)
        self.conv_layers = nn.ModuleList(nn.Conv1d(i, o, k, stride=2, padding=k // 2) for i, o, k in sizes)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (T', B, C) and their lengths (B,) from frames (B, T, F) and their lengths (B,)."""
        x = (frames * real_frames(lengths, frames.shape[1]).unsqueeze(-1)).transpose(1, 2)  # (B, F, T)
        for conv, size in zip(self.conv_layers, self.kernel_sizes, strict=True):
            x = F.glu(conv(x), dim=1)
            lengths = halved(lengths, size)
            x = x * real_frames(lengths, x.shape[-1]).unsqueeze(1)
        return x.permute(2, 0, 1).contiguous(), lengths

    def stream(self, frames: Tensor, held: dict[str, Tensor], final: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the states (n, B, C) that the next frames (B, N, F) complete, and the frames to hold."""
        x = frames.transpose(1, 2)
        hold: dict[str, Tensor] = {}
        for i, conv in enumerate(self.conv_layers):
            assert isinstance(conv, nn.Conv1d)
            seen, hold[f"conv{i}"] = _window(x, held.get(f"conv{i}"), self.kernel_sizes[i], final)
            if seen is None:
                x = x.new_zeros(len(x), conv.out_channels // 2, 0)
            else:
                x = F.glu(F.conv1d(seen, conv.weight, conv.bias, stride=2), dim=1)  # ``held`` has the padding
        return x.permute(2, 0, 1).contiguous(), hold


class Conv2dSubsampler(nn.Module):
    """Two 3 x 3 convolutions of stride 2 over time and frequency, as in ESPnet's ConvTransformer.

    Args:
        in_channels: features per frame.
        conv_channels: channels of both convolutions.
        out_channels: channels of a state.
    """

    kernel_sizes = (3, 3)

    def __init__(self, in_channels: int, conv_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, conv_channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(conv_channels, conv_channels, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        bands = int(halved(halved(torch.tensor(in_channels), 3), 3))  # frequencies are halved twice too
        self.out = nn.Linear(conv_channels * bands, out_channels)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (T', B, C) and their lengths (B,) from frames (B, T, F) and their lengths (B,)."""
        x = (frames * real_frames(lengths, frames.shape[1]).unsqueeze(-1)).unsqueeze(1)  # (B, 1, T, F)
        for conv in (self.conv[:2], self.conv[2:]):
            x = conv(x)
            lengths = halved(lengths, 3)
            x = x * real_frames(lengths, x.shape[2])[:, None, :, None]
        return self.out(x.permute(2, 0, 1, 3).flatten(2)), lengths

    def stream(self, frames: Tensor, held: dict[str, Tensor], final: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the states (n, B, C) that the next frames (B, N, F) complete, and the frames to hold."""
        x = frames.unsqueeze(1)
        hold: dict[str, Tensor] = {}
        for i, conv in enumerate((self.conv[0], self.conv[2])):
            assert isinstance(conv, nn.Conv2d)
            seen, hold[f"conv{i}"] = _window(x, held.get(f"conv{i}"), 3, final)
            if seen is None:
                x = x.new_zeros(len(x), conv.out_channels, 0, (x.shape[3] + 1) // 2)
            else:
                x = F.conv2d(seen, conv.weight, conv.bias, stride=2, padding=(0, 1)).relu()
        return self.out(x.permute(2, 0, 1, 3).flatten(2)), hold
