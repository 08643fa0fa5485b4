"""READ/WRITE policies for models trained to translate simultaneously: pure functions of two numbers, no model.

No policy asks whether the source has ended: a policy that did could make the output depend on how the audio is chunked.
READ is enough. The session waits while more audio may come, and then lets the token read everything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from mla_fairseq.models.wait_k import states_to_read
from mla_fairseq.streaming.checks import check_integer, is_integer


@dataclass(frozen=True)
class Progress:
    """The position of a session within its current sentence.

    Attributes:
        available: encoder states available, counted from the sentence's first one.
        tokens: target tokens decoded.
    """

    available: int
    tokens: int


@dataclass(frozen=True)
class Decision:
    """How far the next token may read.

    Attributes:
        states: encoder states, from the sentence's first one, that the next token may read; 0 means READ: wait for
            more audio or, once the source has ended, read all that is available.

    Raises:
        ValueError: states that are not an integer of at least 0.
    """

    states: int

    def __post_init__(self) -> None:
        check_integer("the number of encoder states that a token may read", self.states, 0)


READ = Decision(0)


class Policy(ABC):
    """The base class of policies.

    Attributes:
        monotonic: whether the model must (``True``) or must not (``False``) have monotonic attention; ``None``: either.
    """

    monotonic: ClassVar[bool | None] = None

    @abstractmethod
    def decide(self, progress: Progress) -> Decision:
        """Decide how far the next token may read. Called once per token, and again after each READ.

        A token reads no more states than are available, and no fewer than the tokens before it have read.
        """


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
        """Read the required states as soon as they are available."""
        required = self.required(progress.tokens)
        return Decision(required) if progress.available >= required else READ


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
        """Wait for the end."""
        return READ


def check_wait_k(lagging: int, ratio: int) -> None:
    """Raise ValueError unless both numbers of wait-k are integers of at least 1."""
    if not (is_integer(lagging, 1) and is_integer(ratio, 1)):
        raise ValueError(
            f"k and the pre-decision ratio of wait-k must be integers of at least 1, but are {lagging!r} and {ratio!r}"
        )
