"""Check a manifest and the archives that it points at when a set is loaded, without reading features."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from mla_fairseq.data import archive, manifest
from mla_fairseq.files import unusable

log = logging.getLogger(__name__)
PLAIN = (".npy", ".wav", ".flac", ".ogg")  # audio that fairseq reads from files of its own
SHOWN = 200  # characters of a wrong value in a message
FIX = "correct the line, or prepare the data again"


def check_manifest(
    path: Path,
    audio_root: Path,
    bins: int | None = None,
    texts: bool = True,
    speakers: Collection[str] | None = None,
    symbols: Collection[str] | None = None,
) -> None:
    """Check every row of a manifest, and that its archives are complete and contain what it points at.

    Args:
        path: the manifest.
        audio_root: folder of the archives.
        bins: bins of the features; ``None``: they are not features, and their length is not checked.
        texts: whether every row must have a text; if not, either all rows or none must have one.
        speakers: the speakers that the model knows; ``None``: the speakers are not used.
        symbols: the symbols that the texts may have; ``None``: any.

    Raises:
        ValueError: the first fault, with its line.
    """
    lines: dict[str, int] = {}  # of the ids
    empty: list[str] = []  # ids
    slices: dict[str, dict[tuple[int, int], tuple[int, int]]] = {}
    for line, row in manifest.rows(path):
        fault = _fault(row, speakers, symbols)
        if fault is None and row["id"] in lines:
            fault = f"repeats the id {row['id']!r}"
        if fault is not None:
            raise ValueError(f"{path}:{line} {fault}: {FIX}")
        lines[row["id"]] = line
        if not row["tgt_text"].strip():
            empty.append(row["id"])
        if match := manifest.SLICE.fullmatch(row["audio"]):
            place = (int(match[2]), int(match[3]))
            slices.setdefault(match[1], {})[place] = (line, int(row["n_frames"]))
        elif not slices and len(lines) == 1 and (fault := unusable(audio_root / row["audio"])):
            raise ValueError(f"{path}:{line}: {audio_root / row['audio']} {fault}: {FIX}")
    if empty and (texts or len(empty) < len(lines)):
        raise ValueError(f"{path}:{lines[empty[0]]} has an empty tgt_text (id {empty[0]}): {FIX}")
    if empty:
        log.warning("%s has no texts: scores of this set mean nothing", path)
    for name, places in slices.items():
        archive.check(audio_root / name, places, wanted_by=path)
        if bins is not None:
            _check_lengths(path, audio_root / name, places, bins)


def frames(path: Path) -> Iterator[int]:
    """Yield the frames of each row of a manifest.

    Raises:
        ValueError: a number is wrong; the message names its line.
    """
    for line, row in manifest.rows(path):
        if fault := _fault_of_frames(row):
            raise ValueError(f"{path}:{line} {fault}: {FIX}")
        yield int(row["n_frames"])


def _fault_of_frames(row: dict[str, str]) -> str | None:
    """Return what is wrong with the number of frames of a row; ``None``: nothing."""
    if _is_count(row["n_frames"]):
        return None
    return f"has an n_frames that is not a whole number above 0 ({row['n_frames'][:SHOWN]!r})"


def _fault(row: dict[str, str], speakers: Collection[str] | None, symbols: Collection[str] | None) -> str | None:
    """Return what is wrong with a row; ``None``: nothing."""
    if not row["id"]:
        return "has no id"
    if fault := _fault_of_frames(row):
        return fault
    if not manifest.SLICE.fullmatch(audio := row["audio"]) and not audio.endswith(PLAIN):
        wanted = f"neither ARCHIVE:OFFSET:LENGTH nor a file of {', '.join(PLAIN)}"
        return f"has an audio that is {wanted} ({audio[:SHOWN]!r})"
    if speakers is not None and row.get("speaker", "") not in speakers:
        return f"has a speaker that is not in the list of speakers ({row.get('speaker', '')!r})"
    if symbols is not None and (unknown := [one for one in row["tgt_text"].split() if one not in symbols]):
        return f"has a symbol that the dictionary lacks ({unknown[0][:SHOWN]!r})"
    return None if (durations := row.get("duration")) is None else _duration_fault(row, durations.split(" "))


def _duration_fault(row: dict[str, str], durations: list[str]) -> str | None:
    """Return what is wrong with the frames of each symbol of a row; ``None``: nothing."""
    if wrong := [value for value in durations if not _is_number(value)]:
        return f"has a duration that is not a number of frames ({wrong[0][:SHOWN]!r})"
    if len(durations) != (symbols := len(row["tgt_text"].split(" "))):
        return f"has {len(durations)} durations for {symbols} symbols"
    if abs((total := sum(map(int, durations))) - int(row["n_frames"])) > manifest.ROUNDING:
        return f"has durations that do not add up to its {row['n_frames']} frames ({total})"
    return None


def _is_count(text: str) -> bool:
    return _is_number(text) and int(text) > 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10  # int() refuses thousands of digits


def _check_lengths(path: Path, file: Path, places: dict[tuple[int, int], tuple[int, int]], bins: int) -> None:
    """Check the frames of each row against the size of its array.

    numpy's headers have one size, so it suffices to read the first one, and those of the arrays that do not fit it.

    Raises:
        ValueError: a row has another n_frames than its array.
    """
    size = 4 * bins  # bytes of a frame of float32
    for (offset, length), (line, frames) in places.items():
        if length == 128 + frames * size:
            continue
        shape = _shape(file, offset)
        if shape is not None and shape != (frames, bins):
            raise ValueError(
                f"{path}:{line} is an array of shape {shape} in {file}, but n_frames is {frames} and the data "
                f"configuration names {bins} bins: {FIX}"
            )


def _shape(file: Path, offset: int) -> tuple[int, ...] | None:
    """Return the shape of the array at an offset; ``None``: no array begins there, which its reader reports."""
    with file.open("rb") as stream:
        stream.seek(offset)
        try:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(stream)[0]
        except ValueError:
            return None
