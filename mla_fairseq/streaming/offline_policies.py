"""Policies for models trained on whole utterances, which re-decode from all audio so far at each segment.

A policy is a pure function of plain numbers. It may stop a greedy hypothesis before a token (``stops``), and says how
much of a finished hypothesis is stable enough to commit (``stable_prefix``). Once the source has ended, everything is
committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mla_fairseq.models.wait_k import states_to_read
from mla_fairseq.streaming.checks import check_integer, is_finite, is_integer
from mla_fairseq.streaming.policies import check_wait_k


class OfflinePolicy:
    """The base class: never stops, and commits whole hypotheses.

    Attributes:
        uses_attention: whether ``stops`` reads attention weights.
        history: how many hypotheses, including the newest, ``stable_prefix`` compares.
    """

    uses_attention: ClassVar[bool] = False
    history: int = 1

    def stops(self, token: int, attention: Sequence[float], states: int) -> bool:
        """Return whether the hypothesis stops before ``token`` (from 0).

        ``attention`` holds the weights of that token over the ``states`` encoder states available. In linear attention
        they can all be zero: then the token has nothing to read yet, as if it attended to audio that has not arrived.
        """
        return False

    def stable_prefix(self, hypotheses: Sequence[Sequence[int]], states: int) -> int:
        """Return how many tokens of the last of ``hypotheses`` may be committed after ``states`` encoder states."""
        return len(hypotheses[-1])


@dataclass(frozen=True)
class AlignAttPolicy(OfflinePolicy):
    """Stop before a token that attends most to one of the last ``frames`` states (Papi et al. 2023, arXiv 2305.11408).

    Raises:
        ValueError: frames that are not an integer of at least 0.
    """

    frames: int
    uses_attention = True

    def __post_init__(self) -> None:
        check_integer("--frame-num", self.frames, 0)

    def stops(self, token: int, attention: Sequence[float], states: int) -> bool:
        """Return whether the state with the largest weight, by default the very last, is one of the last."""
        aligned = max(range(states), key=attention.__getitem__) if any(attention) else states - 1
        return aligned >= states - self.frames


@dataclass(frozen=True)
class EDAttPolicy(OfflinePolicy):
    """Stop before a token with more than ``threshold`` of its attention on the last ``frames`` states (Papi et al.
    2023, arXiv 2212.07850, equation 2).

    Raises:
        ValueError: a threshold outside 0 to 1, or frames that are not an integer of at least 1.
    """

    threshold: float
    frames: int = 2
    uses_attention = True

    def __post_init__(self) -> None:
        if not (is_finite(self.threshold) and 0 <= self.threshold <= 1 and is_integer(self.frames, 1)):
            raise ValueError(
                f"--attn-threshold must be within 0 and 1 and --frame-num an integer of at least 1, but they are "
                f"{self.threshold!r} and {self.frames!r}"
            )

    def stops(self, token: int, attention: Sequence[float], states: int) -> bool:
        """Return whether the share of the last states, by default all of it, is more than the threshold."""
        share = sum(attention[max(0, states - self.frames) :]) if any(attention) else 1.0
        return share > self.threshold


@dataclass(frozen=True)
class LocalAgreementPolicy(OfflinePolicy):
    """Commit the longest common prefix of the last ``agreeing`` hypotheses (Liu et al. 2020, arXiv 2005.11185).

    Raises:
        ValueError: hypotheses that are not an integer of at least 2.
    """

    agreeing: int = 2

    def __post_init__(self) -> None:
        check_integer("--agreeing", self.agreeing, 2)

    @property
    def history(self) -> int:
        """Return the number of hypotheses that have to agree."""
        return self.agreeing

    def stable_prefix(self, hypotheses: Sequence[Sequence[int]], states: int) -> int:
        """Return the length of the common prefix, 0 while there are too few hypotheses."""
        if len(hypotheses) < self.agreeing:
            return 0
        columns = zip(*hypotheses, strict=False)
        shortest = min(len(tokens) for tokens in hypotheses)
        return next((i for i, column in enumerate(columns) if len(set(column)) > 1), shortest)


@dataclass(frozen=True)
class HoldPolicy(OfflinePolicy):
    """Commit all but the last ``tokens`` tokens of a hypothesis (hold-n: Liu et al. 2020, arXiv 2005.11185).

    Raises:
        ValueError: tokens that are not an integer of at least 0.
    """

    tokens: int

    def __post_init__(self) -> None:
        check_integer("--hold", self.tokens, 0)

    def stable_prefix(self, hypotheses: Sequence[Sequence[int]], states: int) -> int:
        """Return the length without the last tokens."""
        return max(0, len(hypotheses[-1]) - self.tokens)


@dataclass(frozen=True)
class OfflineWaitKPolicy(OfflinePolicy):
    """Wait-k on a model that was not trained for it: token t, from 0, needs ``ratio (k + t)`` encoder states.

    Raises:
        ValueError: k or ratio that is not an integer of at least 1.
    """

    lagging: int
    ratio: int

    def __post_init__(self) -> None:
        check_wait_k(self.lagging, self.ratio)

    def stops(self, token: int, attention: Sequence[float], states: int) -> bool:
        """Return whether the token needs more states."""
        return states_to_read(self.lagging, self.ratio, token) > states

    def stable_prefix(self, hypotheses: Sequence[Sequence[int]], states: int) -> int:
        """Return how many tokens have the states they need: a beam search does not stop where greedy search does."""
        return min(len(hypotheses[-1]), max(0, states // self.ratio - self.lagging + 1))
