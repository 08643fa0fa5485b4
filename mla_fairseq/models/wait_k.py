"""Wait-k with fixed pre-decision: which encoder states a target token may see.

Ma et al. 2019, arXiv 1810.08398, equation 4; pre-decision: Ma et al. 2020, arXiv 2011.02048, section 2.2.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Targets = TypeVar("Targets", int, "Tensor")
"""One target, or a tensor of targets; the result has the same shape."""


def states_to_read(lagging: int, ratio: int, target: Targets) -> Targets:
    """Return how many encoder states are read before target ``target`` (from 0) is emitted, if there are as many.

    A pre-decision step is ``ratio`` states: ``lagging`` (k) steps come before the first target, one more before each
    later one.
    """
    return ratio * (lagging + target)


def lagging_range(text: str) -> str:
    """Return the text of ``--waitk-lagging``, as the type of the flag.

    Raises:
        ArgumentTypeError: see ``WaitK.parse``.
    """
    try:
        WaitK.parse(text, ratio=1)
    except ValueError as error:
        raise ArgumentTypeError(str(error).removeprefix("--waitk-lagging ")) from error
    return text


@dataclass(frozen=True)
class WaitK:
    """Let target t, from 0, see the first ``ratio * (k + t)`` encoder states, or all if there are fewer.

    ``lowest`` to ``highest`` is the range of k. Training draws one k for each batch, so that one model serves every
    latency in the range (multi-path training: Elbayad et al. 2020, arXiv 2005.08595).

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
        """Parse ``--waitk-lagging``, such as "3" or "1-9"; ``ratio`` is ``--fixed-pre-decision-ratio``.

        Raises:
            ValueError: neither a number nor a range.
        """
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", str(lagging))
        if found is None:
            raise ValueError(f"--waitk-lagging must be a number such as 3, or a range such as 1-9, but is {lagging!r}")
        return cls(int(found[1]), int(found[2] or found[1]), ratio)

    def draw(self) -> int:
        """Draw the k of a training batch from torch's generator, which fairseq seeds at every update.

        Every batch has its own k. N processes draw what one process draws for the N batches of ``--update-freq N``:
        each draws for all, in the order in which fairseq deals out the batches, and takes its own.
        """
        import torch  # here: a session of an exported model needs neither

        from mla_fairseq.models.distributed import place

        rank, count = place()
        return int(torch.randint(self.lowest, self.highest + 1, (count,))[rank])

    @property
    def middle(self) -> int:
        """Return the k that is used where one is needed: in validation, and by default in an agent."""
        return (self.lowest + self.highest) // 2

    def states(self, lagging: int, target: Targets) -> Targets:
        """Return ``states_to_read`` with this policy's ratio."""
        return states_to_read(lagging, self.ratio, target)
