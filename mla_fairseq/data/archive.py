"""The feature archive: one uncompressed zip of npy arrays, which fairseq reads as `archive.zip:offset:length`.

The archive grows under the name `*.part` and gets its own name only when it is whole. A zip names every member in
front of its bytes, so a run that was killed can be taken up where it stopped: `Writer` walks over the members that
are complete, cuts off the rest and continues.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

HEADER = struct.Struct("<4s5HLLLHH")  # a member's local header, see PKWARE's APPNOTE 4.3.7
MAGIC = b"PK\x03\x04"
EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date: equal features make equal archives
MEND = "prepare the data again (scripts/prep_mustc.py, prep_ljspeech.py), or copy the archive again"


def check(path: Path, places: Iterable[tuple[int, int]] = (), wanted_by: Path | None = None) -> None:
    """Raise ValueError unless `path` is a whole, uncompressed zip with a member at each of `places` (offset, length).

    Cheap: it reads the directory and a few bytes of each member. A copy that broke off has lost the directory, as it
    stands at the end of a zip.
    `wanted_by` is named in the error: the manifest that gave the places.
    """
    if strangers := set(places) - set(members(path).values()):
        raise ValueError(
            f"{wanted_by} points at {len(strangers)} places of {path} where nothing begins, first at byte "
            f"{min(strangers)[0]}: the two do not belong together, {MEND}"
        )


def members(path: Path) -> dict[str, tuple[int, int]]:
    """Where each member's bytes lie: name -> (offset, length) in bytes. Raises ValueError as `check` does."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing: {MEND}")
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            return {info.filename: (_data_offset(file, info), info.file_size) for info in archive.infolist()}
    except (zipfile.BadZipFile, struct.error, EOFError) as error:
        raise ValueError(f"{path} ({path.stat().st_size} bytes) is no whole zip ({error}): {MEND}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}: {MEND}") from error


def read(path: Path, offset: int, length: int) -> np.ndarray:
    """The array stored at `offset`, `length` bytes long."""
    with Path(path).open("rb") as file:
        file.seek(offset)
        return np.load(io.BytesIO(file.read(length)), allow_pickle=False)


def _data_offset(file, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin: behind its local header, whose length only the header itself tells."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed, but fairseq reads bytes in place")
    file.seek(info.header_offset)
    fields = HEADER.unpack(file.read(HEADER.size))
    if fields[0] != MAGIC:
        raise ValueError(f"{info.filename} has no header at byte {info.header_offset}")
    return info.header_offset + HEADER.size + fields[-2] + fields[-1]


class Writer:
    """Adds arrays to `path`, keeping what an earlier run, finished or killed, has left there.

    with Writer(path) as archive:          # `path` appears only when the block ends without an error
        if "a.npy" not in archive.names:
            archive.add("a.npy", array)
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.part = Path(f"{path}.part")

    def __enter__(self) -> Writer:
        if not self.part.exists() and self.path.exists():
            copy = Path(f"{self.part}.copy")  # the archive itself stays: somebody may be reading it
            shutil.copyfile(self.path, copy)
            os.replace(copy, self.part)
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.part.open("r+b" if self.part.exists() else "w+b")
        _lock(self.file, self.part)
        kept = list(_whole_members(self.file))
        self.file.truncate(self.file.tell())
        # Without its directory the file is no zip yet: "a" appends to it, and is told of the members already there.
        self.zip = zipfile.ZipFile(self.file, "a", zipfile.ZIP_STORED)
        for info in kept:
            self.zip.filelist.append(info)
            self.zip.NameToInfo[info.filename] = info
        return self

    @property
    def names(self) -> set[str]:
        """Members that are already in."""
        return set(self.zip.NameToInfo)

    def add(self, name: str, array: np.ndarray) -> None:
        """Store one array under a name that is not in yet."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        self.zip.writestr(_member(name), buffer.getvalue())

    def __exit__(self, kind, error, trace) -> None:
        with self.file:
            self.zip.close()
            self.file.flush()
            os.fsync(self.file.fileno())
            if kind is None:  # otherwise the members stay in `*.part`, where the next run takes them up
                os.replace(self.part, self.path)


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.external_attr = 0o644 << 16  # what `unzip` gives the file
    return info


def _lock(file, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ValueError(f"{path} is being written by another run: wait for it, or stop it") from error


def _whole_members(file) -> Iterator[zipfile.ZipInfo]:
    """Members that are there to their last byte, from the front; leaves the file's position behind the last of them."""
    end = 0
    while True:
        file.seek(end)
        header = file.read(HEADER.size)
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            break
        *_, checksum, size, stored_size, name_length, extra_length = HEADER.unpack(header)
        name = file.read(name_length + extra_length)[:name_length]
        data = file.read(size)
        if not name or len(data) < size or size != stored_size or zlib.crc32(data) != checksum:
            break
        info = _member(name.decode("utf-8"))
        info.header_offset, info.CRC, info.file_size, info.compress_size = end, checksum, size, size
        yield info
        end = file.tell()
    file.seek(end)
