"""Policies for models trained to translate simultaneously: pure functions of two numbers, no model.

Before each token a policy decides: read more source (``READ``), or emit the token now, from the first n encoder states
(``Decision(n)``). A policy does not know whether the source has ended: if it did, the output could depend on how the
audio is split into segments. ``READ`` is enough: while more audio may arrive, the session waits; after the end of the
source, the token reads all encoder states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
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
    """Read more source (``READ``), or emit the next token from a number of encoder states (``Decision(n)``).

    Attributes:
        states: 0 is ``READ``: wait for more audio or, after the end of the source, let the token read all encoder
            states. N > 0: the token may be decoded, from the first N encoder states of the sentence.

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
        """Decide whether to read more source (``READ``) or to emit a token from n encoder states (``Decision(n)``).

        Called once per token, and again when new states arrive after a ``READ``. A token may read no more states than
        are available, and no fewer than the tokens before it have read; the session raises ValueError otherwise.
        """


@dataclass(frozen=True)
class WaitKPolicy(Policy):
    """Wait-k: token t, from 0, reads ``min(S, ratio (k + t))`` encoder states (Ma et al. 2019, arXiv 1810.08398).

    ``S`` is the number of states of the whole source.

    Attributes:
        lagging: k, in pre-decision steps.
        ratio: encoder states per pre-decision step; ``None``: a session takes it from its model.

    Raises:
        ValueError: ``lagging`` or ``ratio`` is not an integer of at least 1.
    """

    lagging: int
    ratio: int | None = None
    monotonic = False

    def __post_init__(self) -> None:
        if self.ratio is None:
            check_integer("k of wait-k", self.lagging, 1)
        else:
            check_wait_k(self.lagging, self.ratio)

    def for_model(self, trained: int | None) -> WaitKPolicy:
        """Return the policy with the ratio of a model; ``None``: the model was not trained with wait-k.

        Raises:
            ValueError: the policy has another ratio, or neither has one.
        """
        ratio = trained if self.ratio is None else self.ratio
        if ratio is None:
            raise ValueError(f"this model was not trained with wait-k: give WaitKPolicy({self.lagging}, ratio=N)")
        if trained not in (None, ratio):
            raise ValueError(
                f"the pre-decision ratio of the policy is {ratio}, but the model was trained with {trained}: "
                f"leave it out, WaitKPolicy({self.lagging})"
            )
        return replace(self, ratio=ratio)

    def required(self, token: int) -> int:
        """Return the number of encoder states that ``token`` (from 0) reads in a source that is long enough.

        Raises:
            ValueError: the policy has no ratio.
        """
        if self.ratio is None:
            raise ValueError(f"{self} has no pre-decision ratio: give one, or use the policy of an IncrementalSession")
        return int(states_to_read(self.lagging, self.ratio, token))

    def decide(self, progress: Progress) -> Decision:
        """Emit the token as soon as the required states are available."""
        required = self.required(progress.tokens)
        return Decision(required) if progress.available >= required else READ


@dataclass(frozen=True)
class MonotonicPolicy(Policy):
    """Let the heads of a model with monotonic attention decide at each encoder state whether to read or to emit."""

    monotonic = True

    def decide(self, progress: Progress) -> Decision:
        """Allow all available states; the heads read as many of them as they need, or wait for more."""
        return Decision(progress.available)


@dataclass(frozen=True)
class WholeSourcePolicy(Policy):
    """Read until the source has ended: offline translation, with the highest latency of all policies."""

    def decide(self, progress: Progress) -> Decision:
        """Return ``READ``."""
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
