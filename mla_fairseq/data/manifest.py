"""Manifests: the tsv tables from which fairseq's speech-to-text dataset reads its utterances."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from mla_fairseq.data.files import write_text


@dataclass(frozen=True)
class Row:
    """One utterance. `audio` is ARCHIVE:OFFSET:LENGTH with the archive's path relative to the manifest's folder."""

    id: str
    audio: str
    n_frames: int
    tgt_text: str
    speaker: str
    src_text: str
    src_lang: str
    tgt_lang: str

    @property
    def archive(self) -> str:
        """Path of the archive, relative to the manifest's folder."""
        return self.audio.rsplit(":", 2)[0]

    @property
    def place(self) -> tuple[int, int]:
        """Byte offset and length of the features in their archive."""
        _, offset, length = self.audio.rsplit(":", 2)
        return int(offset), int(length)


HEADER = "\t".join(field.name for field in fields(Row))


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a manifest; whole or not at all. Texts must be free of tabs and line breaks."""
    lines = ["\t".join(str(value) for value in astuple(row)) for row in rows]
    write_text(path, "\n".join([HEADER, *lines]) + "\n")


def read(path: Path) -> list[Row]:
    """Rows of a manifest that `write` made. Raises ValueError if it is missing or has other columns."""
    path = Path(path)
    if not path.is_file():
        there = ", ".join(sorted(other.name for other in path.parent.glob("*.tsv"))) or "none"
        raise ValueError(f"{path} is missing (manifests there: {there}): prepare the data with scripts/prep_mustc.py")
    header, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    if header != HEADER:
        raise ValueError(f"{path} begins with {header!r} instead of {HEADER!r}: prepare the data again")
    rows = []
    for number, line in enumerate(lines, start=2):
        values = line.split("\t")
        if len(values) != len(fields(Row)):
            raise ValueError(
                f"{path}:{number} has {len(values)} columns instead of {len(fields(Row))}: prepare it again"
            )
        rows.append(Row(values[0], values[1], int(values[2]), *values[3:]))
    return rows
