"""Convolutional subsamplers in front of the encoder: four frames of 10 ms become one state of 40 ms.

Both mask between their convolutions: a sentence in a padded batch gives the same states as alone, which is what
streaming gives. fairseq's do not; on unpadded input the results are equal, and so are the parameter names.

``stream`` takes frames as they come, (B, N, F) with N from 0, and what it ``held`` before (``{}`` at first), and
returns the states that became complete, (n, B, C), and what to hold. A state is complete when the windows of all its
convolutions are; ``final`` pads the last ones on the right, as the parallel pass does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def halved(lengths: Tensor, kernel_size: int) -> Tensor:
    """Frames after a convolution of stride 2 padded by ``kernel_size // 2`` on both sides."""
    return (lengths + 2 * (kernel_size // 2) - kernel_size) // 2 + 1


def real_frames(lengths: Tensor, frames: int) -> Tensor:
    """Boolean (B, frames), true below each length."""
    return torch.arange(frames, device=lengths.device) < lengths.unsqueeze(-1)


def frames_before(kernel_sizes: Sequence[int], states: int) -> int:
    """Frames that must have come before the first ``states`` states are complete, unless the recording ends."""
    for size in reversed(kernel_sizes):
        states = 2 * (states - 1) + size - size // 2
    return states


def _window(x: Tensor, held: Tensor | None, size: int, final: bool) -> tuple[Tensor | None, Tensor]:
    """Input over time (B, C, N, ..) of a convolution of stride 2, what it can see of it now, and what to hold."""
    padding = x.new_zeros(*x.shape[:2], size // 2, *x.shape[3:])
    x = torch.cat([padding if held is None else held, x] + [padding] * final, dim=2)
    outputs = max(0, (x.shape[2] - size) // 2 + 1)
    seen = x[:, :, : 2 * (outputs - 1) + size] if outputs else None
    return seen, x[:, :, 2 * outputs :].clone()


class Conv1dSubsampler(nn.Module):
    """Convolutions over time with gated linear units (Synnaeve et al. 2019, arXiv 1911.08460).

    Args:
        in_channels: features per frame.
        mid_channels: channels between the convolutions, before the gate halves them.
        out_channels: channels of a state.
        kernel_sizes: one convolution of stride 2 for each.
    """

    def __init__(self, in_channels: int, mid_channels: int, out_channels: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        inputs = [in_channels] + [mid_channels // 2] * (len(kernel_sizes) - 1)
        outputs = [mid_channels] * (len(kernel_sizes) - 1) + [out_channels * 2]
        self.conv_layers = nn.ModuleList(
            nn.Conv1d(i, o, k, stride=2, padding=k // 2) for i, o, k in zip(inputs, outputs, kernel_sizes, strict=True)
        )

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, F) with lengths (B,) -> states (T', B, C) with lengths (B,)."""
        x = (frames * real_frames(lengths, frames.shape[1]).unsqueeze(-1)).transpose(1, 2)  # (B, F, T)
        for conv in self.conv_layers:
            x = F.glu(conv(x), dim=1)
            lengths = halved(lengths, conv.kernel_size[0])
            x = x * real_frames(lengths, x.shape[-1]).unsqueeze(1)
        return x.permute(2, 0, 1).contiguous(), lengths

    @property
    def kernel_sizes(self) -> list[int]:
        """Frames that each convolution sees at once."""
        return [conv.kernel_size[0] for conv in self.conv_layers]

    def stream(self, frames: Tensor, held: dict[str, Tensor], final: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """The next frames (B, N, F) -> the states that became complete (n, B, C), and what to hold."""
        x, hold = frames.transpose(1, 2), {}
        for i, conv in enumerate(self.conv_layers):
            seen, hold[f"conv{i}"] = _window(x, held.get(f"conv{i}"), conv.kernel_size[0], final)
            if seen is None:
                x = x.new_zeros(len(x), conv.out_channels // 2, 0)
            else:
                x = F.glu(F.conv1d(seen, conv.weight, conv.bias, stride=2), dim=1)
        return x.permute(2, 0, 1).contiguous(), hold


class Conv2dSubsampler(nn.Module):
    """Two 3 x 3 convolutions of stride 2 over time and frequency, as in ESPnet's ConvTransformer.

    Args:
        in_channels: features per frame.
        conv_channels: channels of both convolutions.
        out_channels: channels of a state.
    """

    def __init__(self, in_channels: int, conv_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, conv_channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(conv_channels, conv_channels, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        bands = int(halved(halved(torch.tensor(in_channels), 3), 3))
        self.out = nn.Linear(conv_channels * bands, out_channels)

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, F) with lengths (B,) -> states (T', B, C) with lengths (B,)."""
        x = (frames * real_frames(lengths, frames.shape[1]).unsqueeze(-1)).unsqueeze(1)  # (B, 1, T, F)
        for conv in (self.conv[:2], self.conv[2:]):
            x = conv(x)
            lengths = halved(lengths, 3)
            x = x * real_frames(lengths, x.shape[2])[:, None, :, None]
        return self.out(x.permute(2, 0, 1, 3).flatten(2)), lengths

    kernel_sizes = (3, 3)

    def stream(self, frames: Tensor, held: dict[str, Tensor], final: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """The next frames (B, N, F) -> the states that became complete (n, B, C), and what to hold."""
        x, hold = frames.unsqueeze(1), {}
        for i, conv in enumerate((self.conv[0], self.conv[2])):
            seen, hold[f"conv{i}"] = _window(x, held.get(f"conv{i}"), 3, final)
            if seen is None:
                x = x.new_zeros(len(x), conv.out_channels, 0, (x.shape[3] + 1) // 2)
            else:
                x = F.conv2d(seen, conv.weight, conv.bias, stride=2, padding=(0, 1)).relu()
        return self.out(x.permute(2, 0, 1, 3).flatten(2)), hold
