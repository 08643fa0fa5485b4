"""Manifests: the tsv tables from which fairseq's speech-to-text dataset reads its utterances."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from mla_fairseq.files import write_text


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


SLICE = re.compile(r"(.+):(\d+):(\d+)")
NEEDED = ("id", "audio", "n_frames", "tgt_text")  # by fairseq


@dataclass(frozen=True)
class TimedRow(Row):
    """One utterance to synthesise, with the frames of each of its symbols, divided by spaces."""

    duration: str


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a manifest; whole or not at all. All rows are of one kind; texts must be free of tabs and line breaks."""
    rows = list(rows)
    header = "\t".join(field.name for field in fields(rows[0] if rows else Row))
    lines = ["\t".join(str(value) for value in astuple(row)) for row in rows]
    write_text(path, "\n".join([header, *lines]) + "\n")


def places(path: Path) -> dict[str, set[tuple[int, int]]]:
    """Which parts of which archives a manifest points at: archive -> {(offset, length) in bytes}.

    Manifests of other tools are read too; their rows that name plain audio files are left out. Raises ValueError if
    the manifest is missing or empty, lacks a column that fairseq needs, or has a row that is too short.
    """
    path = Path(path)
    if not path.is_file():
        there = ", ".join(sorted(other.name for other in path.parent.glob("*.tsv"))) or "none"
        raise ValueError(
            f"{path} is missing (manifests there: {there}): prepare the data (scripts/prep_mustc.py, prep_ljspeech.py)"
        )
    header, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    columns = header.split("\t")
    if missing := [name for name in NEEDED if name not in columns]:
        raise ValueError(f"{path} has the columns {columns}, but `{missing[0]}` is needed: prepare the data again")
    if not lines:
        raise ValueError(f"{path} holds no utterance: prepare the data again")
    found: dict[str, set[tuple[int, int]]] = {}
    for number, line in enumerate(lines, start=2):
        values = line.split("\t")
        if len(values) != len(columns):
            raise ValueError(f"{path}:{number} has {len(values)} columns, not {len(columns)}: prepare the data again")
        if match := SLICE.fullmatch(values[columns.index("audio")]):
            found.setdefault(match[1], set()).add((int(match[2]), int(match[3])))
    return found
