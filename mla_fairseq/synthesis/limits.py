"""When an utterance ends. Needs no package, so that models without PyTorch end as others do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real


@dataclass(frozen=True)
class Limits:
    """The conditions under which an utterance ends.

    Attributes:
        threshold: an utterance ends at the first step whose probability of the end is above this.
        max_steps: largest number of decoder steps of any utterance.
        max_ratio: largest number of steps divided by the number that the model expects; 0: no such limit. It does not
            apply to models without an expected length.
        slack: steps allowed beyond ``max_ratio``, because short expected lengths are uncertain.

    Raises:
        ValueError: a value is not a number, ``threshold`` is outside 0 to 1, ``max_steps`` is below 1, or ``max_ratio``
            is below 0.
    """

    threshold: float = 0.5
    max_steps: int = 1200
    max_ratio: float = 2.0
    slack: int = 10

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            kind, type_ = ("an integer", Integral) if name in ("max_steps", "slack") else ("a number", Real)
            if not isinstance(value, type_):
                raise ValueError(f"{name} must be {kind}, but is {value!r}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"--eos-prob-threshold must be between 0 and 1, but is {self.threshold}")
        if self.max_steps < 1:
            raise ValueError(f"the largest number of decoder steps must be at least 1, but is {self.max_steps}")
        if self.max_ratio < 0:
            raise ValueError(f"--max-length-ratio must be at least 0, but is {self.max_ratio}")

    def steps(self, expected: int | None) -> int:
        """Return the largest number of steps of an utterance for which the model expects so many; ``None``: unknown."""
        if expected is None or self.max_ratio == 0:
            return self.max_steps
        return min(self.max_steps, math.ceil(expected * self.max_ratio) + self.slack)
