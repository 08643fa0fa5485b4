"""READ/WRITE policies for models trained to translate simultaneously: pure functions of two numbers, no model.

Before each token a policy decides: READ (wait for more encoder states) or WRITE (decode the token now, from the first
N states). A policy does not know whether the source has ended: if it did, the output could depend on how the audio is
split into segments. READ is enough: while more audio may arrive, the session waits; after the end of the source, the
token reads all encoder states.
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
        available: number of encoder states available (40 ms each), counted from the first one of the sentence.
        tokens: number of target tokens decoded.
    """

    available: int
    tokens: int


@dataclass(frozen=True)
class Decision:
    """What a policy decides for the next token: READ, or WRITE from a number of encoder states.

    Attributes:
        states: 0 means READ: wait for more audio or, after the end of the source, let the token read all encoder
            states. N > 0 means WRITE: the token may be decoded, from the first N encoder states of the sentence.

    Raises:
        ValueError: ``states`` is not an integer of at least 0.
    """

    states: int

    def __post_init__(self) -> None:
        check_integer("the number of encoder states that a token may read", self.states, 0)


READ = Decision(0)
"""Wait for more encoder states."""


class Policy(ABC):
    """Base class of the policies of an ``IncrementalSession``.

    Attributes:
        monotonic: whether the model must (``True``) or must not (``False``) have monotonic attention; ``None``: either.
    """

    monotonic: ClassVar[bool | None] = None

    @abstractmethod
    def decide(self, progress: Progress) -> Decision:
        """Decide whether the next token waits (READ) or is decoded, and from how many encoder states.

        Called once per token, and again when new states arrive after a READ. A token may read no more states than are
        available, and no fewer than the tokens before it have read; the session raises ValueError otherwise.
        """


@dataclass(frozen=True)
class WaitKPolicy(Policy):
    """Wait-k: token t, from 0, reads ``min(S, ratio (k + t))`` encoder states (Ma et al. 2019, arXiv 1810.08398).

    ``S`` is the number of states of the whole source.

    Attributes:
        lagging: k, in pre-decision steps.
        ratio: encoder states per pre-decision step.

    Raises:
        ValueError: ``lagging`` or ``ratio`` is not an integer of at least 1.
    """

    lagging: int
    ratio: int
    monotonic = False

    def __post_init__(self) -> None:
        check_wait_k(self.lagging, self.ratio)

    def required(self, token: int) -> int:
        """Return the number of encoder states that ``token`` (from 0) reads in a source that is long enough."""
        return int(states_to_read(self.lagging, self.ratio, token))

    def decide(self, progress: Progress) -> Decision:
        """WRITE as soon as the required states are available."""
        required = self.required(progress.tokens)
        return Decision(required) if progress.available >= required else READ


@dataclass(frozen=True)
class MonotonicPolicy(Policy):
    """Let the heads of a model with monotonic attention decide: they READ or WRITE at each encoder state."""

    monotonic = True

    def decide(self, progress: Progress) -> Decision:
        """Allow all available states; the heads read as many of them as they need, or wait for more."""
        return Decision(progress.available)


@dataclass(frozen=True)
class WholeSourcePolicy(Policy):
    """READ until the source has ended: offline translation, with the highest latency of all policies."""

    def decide(self, progress: Progress) -> Decision:
        """READ."""
        return READ


def check_wait_k(lagging: int, ratio: int) -> None:
    """Check both numbers of a wait-k policy.

    Raises:
        ValueError: one of them is not an integer of at least 1.
    """
    if not (is_integer(lagging, 1) and is_integer(ratio, 1)):
        raise ValueError(
            f"k and the pre-decision ratio of wait-k must be integers of at least 1, but are {lagging!r} and {ratio!r}"
        )
