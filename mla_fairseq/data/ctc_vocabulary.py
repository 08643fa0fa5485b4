"""The vocabulary of transcripts for CTC: their characters, as a dictionary in fairseq's format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mla_fairseq.data.check import symbols
from mla_fairseq.files import check_file, write_text
from mla_fairseq.transcripts import SPACE, normalise

KEY = "ctc_vocab_filename"
"""The key of the data configuration."""


def characters(transcripts: Iterable[str]) -> list[tuple[str, int]]:
    """Return the characters of normalised transcripts and their counts, most frequent first."""
    counts = Counter(sign for line in transcripts for sign in normalise(line).replace(" ", SPACE))
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def write(path: Path, counts: Iterable[tuple[str, int]]) -> None:
    """Write the characters."""
    write_text(path, "".join(f"{sign} {count}\n" for sign, count in counts))


def read(config: Path, settings: Mapping[str, Any]) -> str:
    """Return the characters that a data configuration names, in the order of their indices.

    Args:
        config: the path of the configuration.
        settings: its content.

    Raises:
        ValueError: the configuration names no such file, or the file is missing or broken.
    """
    again = "run mla-prepare again with the options of this folder, which keeps its features"
    if (name := settings.get(KEY)) is None:
        raise ValueError(
            f"{config} has no {KEY}, because the folder was prepared without it or has no transcripts, so CTC cannot "
            f"learn them: {again}, or train without --ctc-weight or with --ctc-text target"
        )
    path = check_file(config.parent / name, again)
    if wrong := next((symbol for symbol in symbols(path) if len(symbol) != 1), None):
        raise ValueError(f"{path} has a symbol that is not one character ({wrong!r}): {again}")
    return "".join(symbols(path))
