"""The feature archive: one uncompressed zip of npy arrays, which fairseq reads as ``archive.zip:offset:length``."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

HEADER = struct.Struct("<4s5HLLLHH")  # a member's local header, see PKWARE's APPNOTE 4.3.7
MAGIC = b"PK\x03\x04"
EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date: equal features make equal archives
FIX = "prepare the data again (scripts/prep_mustc.py, prep_ljspeech.py), or copy the archive again"


def check(path: Path, places: Iterable[tuple[int, int]] = (), wanted_by: Path | None = None) -> None:
    """Check that ``path`` is a whole, uncompressed zip with a member at each of ``places`` (offset, length).

    The check reads the directory and a few bytes of each member. A truncated copy is found, because the directory is
    at the end of a zip.

    Args:
        path: the archive.
        places: (offset, length) in bytes.
        wanted_by: the manifest that gave the places, for the error message.

    Raises:
        ValueError: the archive is missing, truncated or compressed, or has no member at a place.
    """
    if strangers := set(places) - set(members(path).values()):
        raise ValueError(
            f"{wanted_by} points at {len(strangers)} places of {path} where no member begins, first at byte "
            f"{min(strangers)[0]}: the two do not belong together, {FIX}"
        )


def members(path: Path) -> dict[str, tuple[int, int]]:
    """Return where the bytes of each member are: name -> (offset, length).

    Raises:
        ValueError: the archive is missing, truncated or compressed.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing: {FIX}")
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            return {info.filename: (_data_offset(file, info), info.file_size) for info in archive.infolist()}
    except (zipfile.BadZipFile, struct.error, EOFError) as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is no whole zip ({error}): {FIX}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}: {FIX}") from error


def read(path: Path, offset: int, length: int) -> np.ndarray:
    """Return the array whose ``length`` bytes begin at ``offset``."""
    with Path(path).open("rb") as file:
        file.seek(offset)
        return np.load(io.BytesIO(file.read(length)), allow_pickle=False)


def _data_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin: after its local header, which alone knows its own length."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed, but fairseq reads bytes in place")
    file.seek(info.header_offset)
    fields = HEADER.unpack(file.read(HEADER.size))
    if fields[0] != MAGIC:
        raise ValueError(f"{info.filename} has no header at byte {info.header_offset}")
    return info.header_offset + HEADER.size + fields[-2] + fields[-1]


class Writer:
    """Add arrays to the archive at ``path``; members that are already in it keep their places.

    with Writer(path) as archive:  # the archive changes only when the block ends without an error
        archive.add("a.npy", array)
    """

    def __init__(self, path: Path) -> None:
        self.path, self.part = Path(path), Path(f"{path}.part")

    def __enter__(self) -> Writer:
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.part.unlink(missing_ok=True)
        if self.path.exists():  # copied, because somebody may be reading it
            shutil.copyfile(self.path, self.part)
        self.zip = zipfile.ZipFile(self.part, "a", zipfile.ZIP_STORED)
        return self

    def add(self, name: str, array: np.ndarray) -> None:
        """Store one array under a new name."""
        info, buffer = zipfile.ZipInfo(name, EPOCH), io.BytesIO()
        info.external_attr = 0o644 << 16  # the permissions that `unzip` gives the file
        np.save(buffer, array, allow_pickle=False)
        self.zip.writestr(info, buffer.getvalue())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.zip.close()
        if kind is not None:
            self.part.unlink()
            return
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.path)
