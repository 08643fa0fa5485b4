"""Wait-k with fixed pre-decision: which encoder states a target token may see (Ma et al. 2019, arXiv 1810.08398,
equation 4; pre-decision: Ma et al. 2020, arXiv 2011.02048, section 2.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor


def states_to_read(lagging: int, ratio: int, target: int | Tensor) -> int | Tensor:
    """How many encoder states are read before target ``target`` (from 0) is written, if there are as many.

    A step of pre-decision is ``ratio`` states: k of them, ``lagging``, before the first target, one more for each.
    """
    return ratio * (lagging + target)


@dataclass(frozen=True)
class WaitK:
    """Target t, from 0, sees the first ``ratio * (k + t)`` encoder states, or all there are.

    ``lowest`` to ``highest`` are the k that training draws from, one for each batch; where they differ, one model
    serves every latency (multi-path training: Elbayad et al. 2020, arXiv 2005.08595).

    Raises:
        ValueError: k or ratio below 1, or a range that ends before it starts.
    """

    lowest: int
    highest: int
    ratio: int

    def __post_init__(self) -> None:
        if not 1 <= self.lowest <= self.highest:
            raise ValueError(
                f"--waitk-lagging must be K or LOWEST-HIGHEST with 1 <= LOWEST <= HIGHEST, but is "
                f"{self.lowest}-{self.highest}"
            )
        if self.ratio < 1:
            raise ValueError(f"--fixed-pre-decision-ratio must be at least 1, but is {self.ratio}")

    @classmethod
    def parse(cls, lagging: str | int, ratio: int) -> WaitK:
        """From ``--waitk-lagging``, "3" or "1-9", and ``--fixed-pre-decision-ratio``.

        Raises:
            ValueError: anything else.
        """
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", str(lagging))
        if found is None:
            raise ValueError(f"--waitk-lagging must be a number such as 3, or a range such as 1-9, but is {lagging!r}")
        return cls(int(found[1]), int(found[2] or found[1]), ratio)

    def draw(self) -> int:
        """The k of a training batch, from torch's generator, which fairseq seeds at every update."""
        return int(torch.randint(self.lowest, self.highest + 1, ()))

    @property
    def middle(self) -> int:
        """The k that stands for the range where one is needed: in validation, and by default in an agent."""
        return (self.lowest + self.highest) // 2

    def states(self, lagging: int, target: int | Tensor) -> int | Tensor:
        """As `states_to_read`, with this rule's ratio."""
        return states_to_read(lagging, self.ratio, target)
