"""Read/write policies: pure decisions on plain numbers, no model. One small class each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mla_fairseq.models.wait_k import states_to_read


@dataclass(frozen=True)
class Progress:
    """How far a stream is.

    Attributes:
        heard: encoder states that are there.
        written: target tokens that were written.
        ended: whether the source has ended, so that no further state will come.
    """

    heard: int
    written: int
    ended: bool


class Policy(Protocol):
    """What a policy has to offer."""

    def reads(self, progress: Progress) -> int | None:
        """How many encoder states, from the first, the next token is written upon; ``None``: READ, wait for more."""
        ...


@dataclass(frozen=True)
class WaitKPolicy:
    """Token t, from 0, is written upon ``min(S, ratio (k + t))`` encoder states (Ma et al. 2019, arXiv 1810.08398).

    Raises:
        ValueError: k or ratio below 1.
    """

    lagging: int
    ratio: int

    def __post_init__(self) -> None:
        if self.lagging < 1 or self.ratio < 1:
            raise ValueError(f"wait-k needs k and ratio of at least 1, but they are {self.lagging} and {self.ratio}")

    def wants(self, token: int) -> int:
        """The rule's number of encoder states for a token, from 0."""
        return states_to_read(self.lagging, self.ratio, token)

    def reads(self, progress: Progress) -> int | None:
        """The rule's number once it is there, or all there are when the source has ended."""
        wanted = self.wants(progress.written)
        if progress.heard >= wanted:
            return wanted
        return progress.heard if progress.ended else None


@dataclass(frozen=True)
class MonotonicPolicy:
    """The heads of a model with monotonic attention decide, each time there is something new."""

    def reads(self, progress: Progress) -> int | None:
        """All that is there: who reads on says so."""
        return progress.heard or None


@dataclass(frozen=True)
class WholeSourcePolicy:
    """Nothing is written before the source has ended: offline translation, the upper end of every latency curve."""

    def reads(self, progress: Progress) -> int | None:
        """All states, at the end."""
        return progress.heard if progress.ended else None
