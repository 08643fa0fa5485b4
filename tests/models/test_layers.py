"""Positions: fairseq's sinusoids from any start, of any number, in a model of any precision."""

import pytest
import torch
from fairseq.modules import SinusoidalPositionalEmbedding
from torch import Tensor

from mla_fairseq.models.layers import SinusoidalPositions

PAD = 1


def fairseqs(channels: int, length: int) -> Tensor:
    """fairseq's table for a sentence without padding, (length, 1, C)."""
    return SinusoidalPositionalEmbedding(channels, PAD)(torch.full((1, length), 5)).transpose(0, 1)


@pytest.mark.parametrize("channels", [4, 7, 16, 512])
@pytest.mark.parametrize("length", [1, 2, 1023, 6001])
def test_positions_are_fairseqs(channels: int, length: int) -> None:
    got = SinusoidalPositions(channels, PAD)(0, length)
    torch.testing.assert_close(got, fairseqs(channels, length), rtol=0, atol=1e-6)


@pytest.mark.parametrize("start", [1, 7, 1022, 5000])
def test_positions_may_start_anywhere(start: int) -> None:
    positions = SinusoidalPositions(16, PAD)
    torch.testing.assert_close(positions(start, 3), positions(0, start + 3)[start:], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_angles_keep_their_precision_in_half_precision(dtype: torch.dtype) -> None:
    """``fairseq-train --fp16`` casts the model, and float16 cannot represent 5001."""
    got = SinusoidalPositions(16, PAD).to(dtype)(0, 6000)
    torch.testing.assert_close(got.float(), fairseqs(16, 6000), rtol=0, atol=1e-2)


def test_positions_are_not_in_a_checkpoint() -> None:
    positions = SinusoidalPositions(16, PAD)
    assert not positions.state_dict()
    positions.load_state_dict({"weights": torch.zeros(1), "_float_tensor": torch.zeros(1)}, strict=True)
