"""What an exported model emits on a test set, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What an exported model emits, and what it costs.

    Attributes:
        megabytes: size of its folder.
        sentences: in the test set.
        same: how many of them have the words of the sweep.
        bleu: of the exported model.
        sweep_bleu: of the sweep.
        real_time_factor: seconds of one processor core per second of speech.
    """

    megabytes: float
    sentences: int
    same: int
    bleu: float
    sweep_bleu: float
    real_time_factor: float

    def render(self, name: str) -> str:
        """Return the row as a line."""
        return (
            f"{name}: {self.megabytes:.1f} MB, {self.same} of {self.sentences} sentences with the words of the sweep, "
            f"BLEU {self.bleu:.2f} (sweep: {self.sweep_bleu:.2f}), {1 / self.real_time_factor:.0f} times real time"
        )
