"""The boundary output of a model in PyTorch, for states that arrive one chunk after another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mla_fairseq.streaming.boundary import Judge


class BoundaryStream(Judge):
    """The boundary output of an encoder, for states that arrive one chunk after another.

    A state is judged once ``boundary.ahead`` states after it are known, so its probabilities never change. Attributes
    are replaced, never changed in place.

    Args:
        boundary: maps encoder states (S, B, C) to logits (S, B, 2), "a sentence ended here" and "speech is here", from
            a window of ``boundary.back`` states before each state and ``boundary.ahead`` after it.

    Attributes:
        window: (n, 1, C), the states that are not judged, and those before them that they need.
    """

    def __init__(self, boundary: Any) -> None:
        super().__init__()
        self.boundary = boundary
        self.window: Tensor | None = None
        self.waiting = 0

    @property
    def nbytes(self) -> int:
        """Return the bytes kept from one call to the next."""
        return super().nbytes + (0 if self.window is None else self.window.nbytes)

    @torch.no_grad()
    def push(self, states: Tensor, final: bool = False) -> None:
        """Judge what the next encoder states (n, 1, C) complete; all of them if they are the last (``final``)."""
        known = states if self.window is None else torch.cat((self.window, states))
        first = len(known) - len(states) - self.waiting
        last = len(known) if final else max(first, len(known) - self.boundary.ahead)
        if last > first:
            self.add(self.boundary(known)[first:last, 0].float().sigmoid().cpu().numpy())
        # a view would keep all states in memory
        self.window = known[max(0, last - self.boundary.back) :].clone()
        self.waiting = len(known) - last
