"""Rings of rows: written in place where nobody sees it, and each object keeps what it was."""

from __future__ import annotations

import random

import numpy as np

from mla_fairseq.edge.runtime.rows import Rows

SLOTS, CAPACITY = 7, 5  # two rows of a call at most


def written(rows: Rows, history: list[int], new: list[int]) -> tuple[Rows, list[int]]:
    """Return a ring, and all rows ever written, after new ones."""
    array = np.array(new, np.float32).reshape(1, 1, -1, 1)
    return rows.write(array, len(history) % SLOTS), history + new


def visible(rows: Rows, history: list[int]) -> list[int]:
    """Return the rows that a graph reads: the latest ones."""
    places = range(max(0, len(history) - CAPACITY), len(history))
    return [int(rows.array[0, 0, place % SLOTS, 0]) for place in places]


def test_every_copy_has_its_own_rows() -> None:
    numbers = random.Random(1)
    for _ in range(50):
        known = [(Rows(np.zeros((1, 1, SLOTS, 1), np.float32)), list[int]())]
        for i in range(1, 40):
            rows, history = known[-1] if numbers.random() < 0.6 else numbers.choice(known)  # or an older one
            known.append(written(rows, history, [i] * numbers.randint(1, SLOTS - CAPACITY)))
            for rows, history in known:
                assert visible(rows, history) == history[-CAPACITY:]


def test_a_stream_alone_copies_nothing() -> None:
    first = rows = Rows(np.zeros((1, 1, SLOTS, 1), np.float32))
    history: list[int] = []
    for i in range(SLOTS):
        rows, history = written(rows, history, [i])
        assert rows.array is first.array
    other, _ = written(first, [], [9])
    assert other.array is not first.array and visible(rows, history) == history[-CAPACITY:]


def test_hypotheses_are_reordered() -> None:
    rows = Rows(np.arange(2 * SLOTS, dtype=np.float32).reshape(2, 1, SLOTS, 1))
    swapped = rows[np.array([1, 0])]
    assert len(swapped) == 2 and swapped.nbytes == rows.nbytes
    swapped.write(np.full((2, 1, 1, 1), 99, np.float32), 0)
    assert rows.array[0, 0, 0, 0] == 0 and rows.array[1, 0, 0, 0] == SLOTS
