"""READ/WRITE policies for models trained to translate simultaneously: pure functions of three numbers, no model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from mla_fairseq.models.wait_k import states_to_read
from mla_fairseq.streaming.checks import is_integer


@dataclass(frozen=True)
class Progress:
    """The position of a session within its current sentence.

    Attributes:
        available: encoder states available, counted from the sentence's first one.
        tokens: target tokens decoded.
        source_ended: whether the source has ended, so that no more encoder states will follow.
    """

    available: int
    tokens: int
    source_ended: bool


@dataclass(frozen=True)
class Decision:
    """How far the next token may read.

    Attributes:
        states: encoder states, from the sentence's first one, that the next token may read; 0 means READ: wait for
            more audio.
        source_ended: whether the token is decoded only because the source has ended.
    """

    states: int
    source_ended: bool = False


READ = Decision(0)


class Policy(ABC):
    """The base class of policies.

    Attributes:
        monotonic: whether the model must (``True``) or must not (``False``) have monotonic attention; ``None``: either.
    """

    monotonic: ClassVar[bool | None] = None

    @abstractmethod
    def decide(self, progress: Progress) -> Decision:
        """Decide how far the next token may read. Called once per token, and again after each READ."""


@dataclass(frozen=True)
class WaitKPolicy(Policy):
    """Wait-k: token t, from 0, reads ``min(S, ratio (k + t))`` encoder states (Ma et al. 2019, arXiv 1810.08398).

    Raises:
        ValueError: k or ratio that is not an integer of at least 1.
    """

    lagging: int
    ratio: int
    monotonic = False

    def __post_init__(self) -> None:
        check_wait_k(self.lagging, self.ratio)

    def required(self, token: int) -> int:
        """Return the encoder states that ``token`` (from 0) reads in a source without an end."""
        return states_to_read(self.lagging, self.ratio, token)

    def decide(self, progress: Progress) -> Decision:
        """Read the required states, or all of them once the source has ended."""
        required = self.required(progress.tokens)
        if progress.available >= required:
            return Decision(required)
        return Decision(progress.available, source_ended=True) if progress.source_ended else READ


@dataclass(frozen=True)
class MonotonicPolicy(Policy):
    """Let the heads of a model with monotonic attention decide whenever there are new encoder states."""

    monotonic = True

    def decide(self, progress: Progress) -> Decision:
        """Allow all available states; the heads read as many of them as they need."""
        return Decision(progress.available)


@dataclass(frozen=True)
class WholeSourcePolicy(Policy):
    """READ until the source has ended: offline translation, the upper end of every latency curve."""

    def decide(self, progress: Progress) -> Decision:
        """Read all states, at the end."""
        return Decision(progress.available, source_ended=True) if progress.source_ended else READ


def check_wait_k(lagging: int, ratio: int) -> None:
    """Raise ValueError unless both numbers of wait-k are integers of at least 1."""
    if not (is_integer(lagging, 1) and is_integer(ratio, 1)):
        raise ValueError(
            f"k and the pre-decision ratio of wait-k must be integers of at least 1, but are {lagging!r} and {ratio!r}"
        )
