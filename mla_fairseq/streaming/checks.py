"""Checks of the numbers that users give to policies and searches."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray


def is_integer(value: Any, lowest: int) -> bool:
    """Return whether ``value`` is an integer, not a bool, of at least ``lowest``."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= lowest


def is_finite(*values: Any) -> bool:
    """Return whether all ``values`` are finite real numbers."""
    return all(isinstance(value, Real) and math.isfinite(value) for value in values)


def check_integer(name: str, value: Any, lowest: int) -> None:
    """Check that ``value`` is an integer of at least ``lowest``; ``name`` is what the message calls it.

    Raises:
        ValueError: it is not.
    """
    if not is_integer(value, lowest):
        raise ValueError(f"{name} must be an integer of at least {lowest}, but is {value!r}")


def check_weight(weight: Any) -> None:
    """Check a weight of CTC prefix scores.

    Raises:
        ValueError: it is not a number from 0 to below 1.
    """
    if not (is_finite(weight) and 0 <= weight < 1):
        raise ValueError(f"ctc_weight (--ctc-decoding-weight) must be at least 0 and below 1, but is {weight!r}")


def check_same(session: object, snapshot: object, names: Iterable[str]) -> None:
    """Check that a session and a snapshot were made with the same arguments, the attributes ``names``.

    Raises:
        ValueError: one of them differs.
    """
    for name in names:
        if getattr(session, name) != getattr(snapshot, name):
            raise ValueError(f"the snapshot is of a session with another {name}: use one of this session")


def check_scores(scores: NDArray) -> NDArray:
    """Return the scores of a model, which no search can compare if one is NaN.

    Raises:
        ValueError: one is.
    """
    if np.isnan(scores).any():
        raise ValueError(
            "the scores of the model are not finite: use another checkpoint, or the statistics of its training data "
            "(gcmvn.npz)"
        )
    return scores
