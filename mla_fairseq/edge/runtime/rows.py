"""Buffers of graphs, such as the keys of softmax attention: each call gives only new rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Rows:
    """The rows of a stream, row i in slot i modulo their number. Writing returns another object.

    Objects share an array as long as they can: new rows go to slots that older objects do not read. An older object
    that is written to again copies the array, and so does every object once all slots were used.

    Args:
        array: (B, H, slots, D), which belongs to this object.
        full: whether all slots were used.
        writes: how often ``array`` was written to until this object.
        latest: the same for the latest object that has ``array``, in a list that they share.
    """

    def __init__(self, array: NDArray, full: bool = False, writes: int = 0, latest: list[int] | None = None) -> None:
        self.array, self.full, self.writes = array, full, writes
        self.latest = [writes] if latest is None else latest

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, order: NDArray) -> Rows:
        """Return the rows of which entry i of dim 0 is entry ``order[i]`` of these."""
        return Rows(self.array[order], self.full)

    @property
    def nbytes(self) -> int:
        """Return the size in bytes."""
        return self.array.nbytes

    def write(self, rows: NDArray, slot: int) -> Rows:
        """Return the rows with new ones (B, H, n, D) in slots ``slot``, ``slot`` + 1 ..; after the last, the first."""
        slots, end = self.array.shape[2], slot + rows.shape[2]
        alone = self.writes == self.latest[0] and not self.full and end <= slots
        array, latest = (self.array, self.latest) if alone else (self.array.copy(), [0])
        array[:, :, np.arange(slot, end) % slots] = rows
        latest[0] += 1
        return Rows(array, self.full or end >= slots, latest[0], latest)
