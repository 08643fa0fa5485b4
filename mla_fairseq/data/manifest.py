"""Write and read manifests: the tsv tables from which fairseq's speech datasets read their utterances."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from mla_fairseq.files import read_text, unusable, warn_if_cut, write_text


@dataclass(frozen=True)
class Row:
    """One utterance. ``audio`` is ARCHIVE:OFFSET:LENGTH; the archive's path is relative to the manifest's folder."""

    id: str
    audio: str
    n_frames: int
    tgt_text: str
    speaker: str
    src_text: str
    src_lang: str
    tgt_lang: str


_UNFIT = re.compile(r"[\t\r\n\ud800-\udfff]")
SLICE = re.compile(r"(.+):([0-9]{1,18}):([0-9]{1,18})")  # 18 digits: what a file position can have
ROUNDING = 2  # frames by which the sum of durations may differ: aligners have other frame borders than spectrograms
NEEDED = ("id", "audio", "n_frames", "tgt_text")  # by fairseq


@dataclass(frozen=True)
class TimedRow(Row):
    """One utterance to synthesise, with the number of frames of each symbol, separated by spaces."""

    duration: str


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a manifest atomically. All rows have the same class.

    Raises:
        ValueError: a value has a tab, a line break or a surrogate, so that another value would be read back.
    """
    rows = list(rows)
    for row in rows:
        for name, value in vars(row).items():
            if isinstance(value, str) and _UNFIT.search(value):
                raise ValueError(f"{path}: {name} of {row.id!r} has a tab or a line break ({value!r}): remove it")
    header = "\t".join(field.name for field in fields(rows[0] if rows else Row))
    lines = ["\t".join(str(value) for value in astuple(row)) for row in rows]
    write_text(path, "\n".join([header, *lines]) + "\n")


def rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the cells of each row of a manifest, which may be of another tool.

    Raises:
        ValueError: the manifest is missing, empty or not UTF-8, lacks a column that fairseq needs, or has a row of
            another length or with a null character.
    """
    path = Path(path)
    if fault := unusable(path):
        found = ", ".join(sorted(other.name for other in path.parent.glob("*.tsv"))) or "none"
        raise ValueError(
            f"{path} {fault} (manifests in this folder: {found}): "
            "prepare the data (mla-prepare or mla-prepare-tts), or correct the name of the subset"
        )
    text = read_text(path, mark=True)
    warn_if_cut(path, text)
    header, *lines = text.rstrip("\n").split("\n")
    if header.startswith("\ufeff"):
        raise ValueError(f"{path} begins with a byte order mark: save it as UTF-8 without one")
    columns = header.split("\t")
    if missing := [name for name in NEEDED if name not in columns]:
        raise ValueError(f"{path} lacks the column {missing[0]!r} (it has {columns}): prepare the data again")
    if len(set(columns)) < len(columns):
        raise ValueError(f"{path} has a column twice (it has {columns}): remove one, or prepare the data again")
    if not lines:
        raise ValueError(f"{path} contains no utterance: prepare the data again")
    for number, line in enumerate(lines, start=2):
        values = line.split("\t")
        if len(values) != len(columns):
            raise ValueError(f"{path}:{number} has {len(values)} of {len(columns)} columns: prepare the data again")
        if "\0" in line:
            raise ValueError(f"{path}:{number} has a null character: correct the line, or prepare the data again")
        yield number, dict(zip(columns, values, strict=True))


def places(path: Path) -> dict[str, set[tuple[int, int]]]:
    """Return the places that a manifest points at: archive -> {(offset, length) in bytes}.

    Rows that name plain audio files are skipped.

    Raises:
        ValueError: ``rows`` refuses the manifest.
    """
    result: dict[str, set[tuple[int, int]]] = {}
    for _, row in rows(path):
        if match := SLICE.fullmatch(row["audio"]):
            result.setdefault(match[1], set()).add((int(match[2]), int(match[3])))
    return result


def languages(path: Path) -> set[tuple[str, str]]:
    """Return the (source, target) languages of a manifest's rows; a column that is missing gives empty texts."""
    return {(row.get("src_lang", ""), row.get("tgt_lang", "")) for _, row in rows(path)}
