"""The boundary output of a chunked encoder: where a sentence ended, and where speech is."""

from __future__ import annotations

import math
from argparse import Namespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.speech.samples import FRAMES_PER_STATE as FRAMES_PER_STATE


class BoundaryOutput(nn.Module):
    """A linear map of a window of encoder states: each state, those just before it, and some after it.

    Where the window leaves the source, its states are zero. So a state of a stream has its output once ``ahead`` states
    after it are known.

    Args:
        channels: channels of the encoder states (C).
        weight: of its loss in training.
        back: states before.
        ahead: states after; 6 are 0.24 s.
    """

    def __init__(self, channels: int, weight: float = 1.0, back: int = 2, ahead: int = 6) -> None:
        super().__init__()
        self.weight, self.back, self.ahead = weight, back, ahead
        self.linear = nn.Linear(channels * (back + 1 + ahead), 2)

    @classmethod
    def build(cls, args: Namespace, streams: bool) -> BoundaryOutput | None:
        """Build the output if ``--boundary-weight`` is above 0; ``streams``: the encoder is chunked.

        Raises:
            ValueError: a weight below 0, or a full-context encoder.
        """
        weight = getattr(args, "boundary_weight", None) or 0.0
        if not (weight >= 0 and math.isfinite(weight)):
            raise ValueError(f"--boundary-weight must be at least 0, but is {weight}")
        if weight and not streams:
            raise ValueError(
                f"--boundary-weight {weight} needs a chunked encoder: remove it, or give --encoder-chunk-size N"
            )
        return cls(args.encoder_embed_dim, weight) if weight else None

    def forward(self, states: Tensor) -> Tensor:
        """Return logits (S, B, 2) of encoder states (S, B, C): a sentence ended here, speech is here."""
        padded = F.pad(states, (0, 0, 0, 0, self.back, self.ahead))
        shifts = range(self.back + 1 + self.ahead)
        return self.linear(torch.cat([padded[shift : shift + len(states)] for shift in shifts], dim=-1))
