"""Policies for models trained on whole utterances, which re-decode from all audio so far at each segment.

A policy is a pure function of plain numbers. It decides where a greedy hypothesis stops (``stops``) and how much of a
finished hypothesis is stable enough to commit (``stable_prefix``). After the end of the source, the session commits the
whole hypothesis.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mla_fairseq.models.wait_k import states_to_read
from mla_fairseq.streaming.checks import check_integer, is_finite, is_integer
from mla_fairseq.streaming.policies import check_wait_k


class OfflinePolicy:
    """Base class of the policies of an ``OfflineSession``: never stops, and commits whole hypotheses.

    Attributes:
        uses_attention: whether ``stops`` needs attention weights.
    """

    uses_attention: ClassVar[bool] = False

    @property
    def history(self) -> int:
        """Return the number of hypotheses, including the newest, that ``stable_prefix`` compares."""
        return 1

    def stops(self, token: int, attention: Sequence[float], states: int) -> bool:
        """Return whether the hypothesis stops before ``token`` (from 0).

        ``attention`` (states,) holds the weights of that token over the ``states`` encoder states available; it is
        empty for policies that do not use attention. In linear attention all weights can be zero; the token is then
        treated as if it attended to audio that has not arrived.
        """
        return False

    def stable_prefix(self, hypotheses: Sequence[Sequence[int]], states: int) -> int:
        """Return how many tokens of the newest hypothesis, the last one, may be committed after ``states`` states."""
        return len(hypotheses[-1])


@dataclass(frozen=True, kw_only=True)
class AttentionPolicy(OfflinePolicy, ABC):
    """Base class of policies that stop by a token's attention to the last encoder states.

    A *sink* is a state that tokens attend to whatever they mean, which hides what they align to. The last state often
    is one. The published implementations of AlignAtt and EDAtt drop its weight; the last states are those before it.

    Attributes:
        skip_last: number of last encoder states whose weights are dropped.
        skip_first: number of first encoder states whose weights are dropped.

    Raises:
        ValueError: ``skip_last`` or ``skip_first`` is not an integer of at least 0.
    """

    skip_last: int = 1
    skip_first: int = 0
    uses_attention = True

    def __post_init__(self) -> None:
        check_integer("--skip-last", self.skip_last, 0)
        check_integer("--skip-first", self.skip_first, 0)

    def stops(self, token: int, attention: Sequence[float], states: int) -> bool:
        """Return whether the weights that are not dropped stop the hypothesis; with no weight at all they do."""
        kept = attention[self.skip_first : max(0, states - self.skip_last)]
        return not any(kept) or self._stops(kept)

    @abstractmethod
    def _stops(self, kept: Sequence[float]) -> bool:
        """Return whether weights, not all of them zero, stop the hypothesis."""


@dataclass(frozen=True)
class AlignAttPolicy(AttentionPolicy):
    """Stop before a token that attends most to one of the last ``frames`` states (Papi et al. 2023, arXiv 2305.11408).

    Attributes:
        frames: number of last encoder states (40 ms each), which the paper calls frames.

    Raises:
        ValueError: ``frames`` is not an integer of at least 0, or as in ``AttentionPolicy``.
    """

    frames: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("--frame-num", self.frames, 0)

    def _stops(self, kept: Sequence[float]) -> bool:
        return max(range(len(kept)), key=kept.__getitem__) >= len(kept) - self.frames


@dataclass(frozen=True)
class EDAttPolicy(AttentionPolicy):
    """Stop before a token with at least ``threshold`` of its attention on the last ``frames`` states (Papi et al. 2023,
    arXiv 2212.07850).

    The attention is a sum of weights after their division by their Euclidean norm. Equation 2 of the paper has no
    division, but its implementation has, and published thresholds are on that scale: the sum reaches 1 for one state,
    and at most the square root of ``frames``.

    Attributes:
        threshold: sum of weights, at least 0, at which the hypothesis stops.
        frames: number of last encoder states (40 ms each), which the paper calls frames.

    Raises:
        ValueError: ``threshold`` is not a number of at least 0, ``frames`` is not an integer of at least 1, or as in
            ``AttentionPolicy``.
    """

    threshold: float
    frames: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_finite(self.threshold) and self.threshold >= 0 and is_integer(self.frames, 1)):
            raise ValueError(
                f"--attn-threshold must be at least 0 and --frame-num an integer of at least 1, but they are "
                f"{self.threshold!r} and {self.frames!r}"
            )

    def _stops(self, kept: Sequence[float]) -> bool:
        return sum(kept[-self.frames :]) >= self.threshold * math.hypot(*kept)


@dataclass(frozen=True)
class LocalAgreementPolicy(OfflinePolicy):
    """Commit the longest common prefix of the last ``agreeing`` hypotheses (Liu et al. 2020, arXiv 2005.11185).

    Attributes:
        agreeing: number of hypotheses compared, one from each segment.

    Raises:
        ValueError: ``agreeing`` is not an integer of at least 2.
    """

    agreeing: int = 2

    def __post_init__(self) -> None:
        check_integer("--agreeing", self.agreeing, 2)

    @property
    def history(self) -> int:
        """Return the number of hypotheses that must agree."""
        return self.agreeing

    def stable_prefix(self, hypotheses: Sequence[Sequence[int]], states: int) -> int:
        """Return the length of the common prefix; 0 while there are too few hypotheses."""
        if len(hypotheses) < self.agreeing:
            return 0
        columns = zip(*hypotheses, strict=False)
        shortest = min(len(tokens) for tokens in hypotheses)
        return next((i for i, column in enumerate(columns) if len(set(column)) > 1), shortest)


@dataclass(frozen=True)
class HoldPolicy(OfflinePolicy):
    """Commit all but the last ``tokens`` tokens of a hypothesis (hold-n: Liu et al. 2020, arXiv 2005.11185).

    Attributes:
        tokens: number of tokens held back.

    Raises:
        ValueError: ``tokens`` is not an integer of at least 0.
    """

    tokens: int

    def __post_init__(self) -> None:
        check_integer("--hold", self.tokens, 0)

    def stable_prefix(self, hypotheses: Sequence[Sequence[int]], states: int) -> int:
        """Return the length of the newest hypothesis without its last tokens."""
        return max(0, len(hypotheses[-1]) - self.tokens)


@dataclass(frozen=True)
class OfflineWaitKPolicy(OfflinePolicy):
    """Wait-k on a model that was not trained for it: token t, from 0, needs ``ratio (k + t)`` encoder states.

    Attributes:
        lagging: k, in pre-decision steps.
        ratio: encoder states per pre-decision step.

    Raises:
        ValueError: ``lagging`` or ``ratio`` is not an integer of at least 1.
    """

    lagging: int
    ratio: int

    def __post_init__(self) -> None:
        check_wait_k(self.lagging, self.ratio)

    def stops(self, token: int, attention: Sequence[float], states: int) -> bool:
        """Return whether the token needs more states."""
        return int(states_to_read(self.lagging, self.ratio, token)) > states

    def stable_prefix(self, hypotheses: Sequence[Sequence[int]], states: int) -> int:
        """Return how many tokens have the states they need; beam search does not stop by ``stops``."""
        return min(len(hypotheses[-1]), max(0, states // self.ratio - self.lagging + 1))
