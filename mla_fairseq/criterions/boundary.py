"""The loss of an encoder's boundary output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mla_fairseq.models.boundary import FRAMES_PER_STATE

NEAR = 6  # frames from the end of a sentence to the states that have its label: three states
RARE = 4.0  # weight of the few states that have it
SPEECH = 0.3  # weight of "speech is here", which is easy


def boundary_labels(states: int, ends: Tensor, speech: Tensor) -> Tensor:
    """Return what the boundary output should say, (S, B, 2): a sentence ended here, speech is here.

    Args:
        states: number of encoder states S. State s is in the middle of the frames that it is computed from, at 4 s.
        ends: (B,), the frame after the last one of each sentence.
        speech: (B, T), true for frames of speech.
    """
    places = FRAMES_PER_STATE * torch.arange(states, device=ends.device)
    ended = (places.unsqueeze(1) - ends).abs() <= NEAR
    heard = speech[:, places.clamp_max(speech.shape[1] - 1)].t()
    return torch.stack((ended, heard), dim=-1).float()


def boundary_loss(logits: Tensor, real: Tensor, ends: Tensor, speech: Tensor) -> Tensor:
    """Return the mean over real states of the weighted binary cross-entropy of a batch.

    Args:
        logits: (S, B, 2).
        real: (S, B), true for real states.
        ends: (B,), as for ``boundary_labels``.
        speech: (B, T), as for ``boundary_labels``.
    """
    labels = boundary_labels(len(logits), ends, speech)
    rare = logits.new_tensor([RARE, 1.0], dtype=torch.float)
    losses = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none", pos_weight=rare)
    return ((losses[..., 0] + SPEECH * losses[..., 1]) * real).sum() / real.sum()
