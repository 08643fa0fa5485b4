"""When an offline model may speak: policies over hypotheses that are written anew whenever more was heard.

Each is a pure decision on plain numbers. At every piece of audio the model continues what has gone out by a hypothesis
upon all that was heard. A policy may end it before a token (``refuses``), and says how much of it may go out
(``commits``). At the end of the source everything goes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mla_fairseq.models.wait_k import states_to_read

Tokens = Sequence[int]


class OfflinePolicy(Protocol):
    """What such a policy has to offer.

    Attributes:
        attends: whether it looks at attention.
        history: how many hypotheses it compares, the newest included.
    """

    attends: bool
    history: int

    def refuses(self, place: int, attention: Sequence[float], states: int) -> bool:
        """Whether the hypothesis ends before the token at ``place`` (from 0), which attends so to ``states`` states."""
        ...

    def commits(self, hypotheses: Sequence[Tokens], states: int) -> int:
        """How many tokens of the last of these hypotheses may go out upon so many states."""
        ...


@dataclass(frozen=True)
class AlignAttPolicy:
    """A token that attends most to one of the last ``frames`` states waits (Papi et al. 2023, arXiv 2305.11408).

    Raises:
        ValueError: frames below 0.
    """

    frames: int
    attends = True
    history = 1

    def __post_init__(self) -> None:
        if self.frames < 0:
            raise ValueError(f"--frame-num must be at least 0, but is {self.frames}")

    def refuses(self, place: int, attention: Sequence[float], states: int) -> bool:
        """Whether the place of the largest weight is among the last."""
        return max(range(states), key=attention.__getitem__) >= states - self.frames

    def commits(self, hypotheses: Sequence[Tokens], states: int) -> int:
        """All that was not refused."""
        return len(hypotheses[-1])


@dataclass(frozen=True)
class EDAttPolicy:
    """A token with more than ``threshold`` of its attention on the last ``frames`` states waits (Papi et al. 2023,
    arXiv 2212.07850, equation 2).

    Raises:
        ValueError: a threshold outside 0 to 1, or frames below 1.
    """

    threshold: float
    frames: int = 2
    attends = True
    history = 1

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1 or self.frames < 1:
            raise ValueError(
                f"--attn-threshold must be within 0 and 1 and --frame-num at least 1, but they are {self.threshold} "
                f"and {self.frames}"
            )

    def refuses(self, place: int, attention: Sequence[float], states: int) -> bool:
        """Whether the last states have more than their share."""
        return sum(attention[max(0, states - self.frames) :]) > self.threshold

    def commits(self, hypotheses: Sequence[Tokens], states: int) -> int:
        """All that was not refused."""
        return len(hypotheses[-1])


@dataclass(frozen=True)
class LocalAgreementPolicy:
    """What the last ``hypotheses`` hypotheses begin with goes out (Liu et al. 2020, arXiv 2005.11185).

    Raises:
        ValueError: fewer than two.
    """

    agreeing: int = 2
    attends = False

    def __post_init__(self) -> None:
        if self.agreeing < 2:
            raise ValueError(f"--agreeing must be at least 2 hypotheses, but is {self.agreeing}")

    @property
    def history(self) -> int:
        """As many as have to agree."""
        return self.agreeing

    def refuses(self, place: int, attention: Sequence[float], states: int) -> bool:
        """Never: hypotheses are compared when they are whole."""
        return False

    def commits(self, hypotheses: Sequence[Tokens], states: int) -> int:
        """The length of the common beginning, once there are enough of them."""
        if len(hypotheses) < self.agreeing:
            return 0
        columns = zip(*hypotheses, strict=False)
        return next(
            (i for i, column in enumerate(columns) if len(set(column)) > 1), min(len(tokens) for tokens in hypotheses)
        )


@dataclass(frozen=True)
class HoldPolicy:
    """All but the last ``tokens`` of a hypothesis goes out (hold-n: Liu et al. 2020, arXiv 2005.11185).

    Raises:
        ValueError: a number below 0.
    """

    tokens: int
    attends = False
    history = 1

    def __post_init__(self) -> None:
        if self.tokens < 0:
            raise ValueError(f"--hold must be at least 0 tokens, but is {self.tokens}")

    def refuses(self, place: int, attention: Sequence[float], states: int) -> bool:
        """Never."""
        return False

    def commits(self, hypotheses: Sequence[Tokens], states: int) -> int:
        """All but the last ones."""
        return max(0, len(hypotheses[-1]) - self.tokens)


@dataclass(frozen=True)
class OfflineWaitKPolicy:
    """Wait-k on a model that was not trained for it: token t waits for ``ratio (k + t)`` states.

    Raises:
        ValueError: k or ratio below 1.
    """

    lagging: int
    ratio: int
    attends = False
    history = 1

    def __post_init__(self) -> None:
        if self.lagging < 1 or self.ratio < 1:
            raise ValueError(f"wait-k needs k and ratio of at least 1, but they are {self.lagging} and {self.ratio}")

    def refuses(self, place: int, attention: Sequence[float], states: int) -> bool:
        """Whether the rule wants more states."""
        return states_to_read(self.lagging, self.ratio, place) > states

    def commits(self, hypotheses: Sequence[Tokens], states: int) -> int:
        """What the rule has states for: a beam search does not stop where greedy search was refused."""
        return min(len(hypotheses[-1]), max(0, states // self.ratio - self.lagging + 1))
