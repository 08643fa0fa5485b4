"""The feature archive: one uncompressed zip of npy arrays, which fairseq reads as ``archive.zip:offset:length``."""

from __future__ import annotations

import contextlib
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

from mla_fairseq.files import check_file, replacing

HEADER = struct.Struct("<4s5HLLLHH")  # a member's local header, see PKWARE's APPNOTE 4.3.7
MAGIC = b"PK\x03\x04"
EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that equal features give equal bytes
FIX = "prepare the data again (mla-prepare or mla-prepare-tts), or copy the archive again"


def check(path: Path, places: Iterable[tuple[int, int]] = (), wanted_by: Path | None = None) -> None:
    """Check that ``path`` is a complete, uncompressed zip with a member at each of ``places``.

    The check reads the zip's directory and a few bytes of each member. It detects a truncated copy, because the
    directory is at the end of the file.

    Args:
        path: the archive.
        places: (offset, length) in bytes.
        wanted_by: the manifest that contains the places, for the error message.

    Raises:
        ValueError: the archive is missing, truncated or compressed, or has no member at a place.
    """
    if unknown := set(places) - set(members(path).values()):
        raise ValueError(
            f"{wanted_by} does not match {path} ({len(unknown)} places where no array begins, first at byte "
            f"{min(unknown)[0]}): {FIX}"
        )


def members(path: Path) -> dict[str, tuple[int, int]]:
    """Return the place of each member: name -> (offset, length) in bytes.

    Raises:
        ValueError: the archive is missing, truncated or compressed.
    """
    path = check_file(path, FIX)
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            return {info.filename: (_data_offset(file, info), info.file_size) for info in archive.infolist()}
    except (zipfile.BadZipFile, struct.error, EOFError, OSError) as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is not a complete zip ({error}): {FIX}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}: {FIX}") from error


def read(path: Path, offset: int, length: int) -> np.ndarray:
    """Return the array that is stored in ``length`` bytes from byte ``offset``.

    Raises:
        ValueError: no array is stored there, or the file is missing, or a pipe, which would be waited for.
    """
    with check_file(path, FIX).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if offset + length > size:  # reading would reserve the memory first
            raise ValueError(
                f"{path} has {size} bytes, but byte {offset} and {length} bytes from there are needed: {FIX}"
            )
        file.seek(offset)
        data = file.read(length)
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:  # a broken header may name any shape
        raise ValueError(f"{path} has no array of {length} bytes at byte {offset} ({error}): {FIX}") from error


def _data_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return the byte where the data of a member begins.

    Raises:
        ValueError: the member is compressed or has no header.
    """
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed, but fairseq reads bytes in place")
    # the directory gives the place of the local header, but only that header gives its length
    file.seek(info.header_offset)
    fields = HEADER.unpack(file.read(HEADER.size))
    if fields[0] != MAGIC:
        raise ValueError(f"{info.filename} has no header at byte {info.header_offset}")
    return info.header_offset + HEADER.size + fields[-2] + fields[-1]


class Writer:
    """Add arrays to the archive at ``path``; existing members keep their places.

    The archive changes only when the block ends without an error::

        with Writer(path) as archive:
            archive.add("a.npy", array)
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> Writer:
        with contextlib.ExitStack() as stack:
            part = stack.enter_context(replacing(self.path))
            if self.path.exists():  # copied, because another process may be reading it
                shutil.copyfile(self.path, part)
            stack.callback(_to_disk, part)  # before the rename, or a power failure could leave an empty archive
            self.zip = stack.enter_context(zipfile.ZipFile(part, "a", zipfile.ZIP_STORED))
            self.stack = stack.pop_all()
        return self

    def add(self, name: str, array: np.ndarray) -> None:
        """Add one array under a new name."""
        info, buffer = zipfile.ZipInfo(name, EPOCH), io.BytesIO()
        info.external_attr = 0o644 << 16  # the permissions that `unzip` gives the file
        np.save(buffer, array, allow_pickle=False)
        self.zip.writestr(info, buffer.getvalue())

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.__exit__(error_type, error, trace)


def _to_disk(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
