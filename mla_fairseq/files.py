"""Write files completely or not at all, and check names that come from files before they become paths.

No reader sees a partial file, and no killed run leaves one under its name. An output is written under a temporary name
and renamed. A rename would replace a device or a link itself, so an output that exists must be a regular file.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mla_fairseq.json_text import parse_json

log = logging.getLogger(__name__)

# also what some programs take for the end of a line, and surrogates, which UTF-8 cannot encode
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
MISSING, OTHER = "is missing", "is not a regular file"
LONGEST = 200  # bytes of a name; file systems allow 255, and outputs get suffixes and temporary names


def user_dir() -> str:
    """Return the folder of this package for ``--user-dir``: relative if it is below the current folder."""
    folder = Path(__file__).resolve().parent
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)


def read_text(path: Path, newline: str | None = None, mark: bool = False) -> str:
    """Read a UTF-8 text.

    Args:
        path: the file.
        newline: as in ``open``.
        mark: keep the byte order mark that some editors write in front.

    Raises:
        ValueError: another encoding, or not a regular file: reading a pipe would wait for ever.
        FileNotFoundError: the file is missing.
    """
    if (fault := unusable(path)) not in ("", MISSING):
        raise ValueError(f"{path} {fault}: copy it again, or correct its name")
    try:
        with Path(path).open(encoding="utf-8" if mark else "utf-8-sig", newline=newline) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(_not_utf8(Path(path).read_bytes(), path)) from error


def _not_utf8(data: bytes, path: Path) -> str:
    """Return the message about a file that is not UTF-8; the decoder of ``open`` counts from the last block only."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        place = f"line {line}, byte {error.start}: 0x{data[error.start]:02x}, {error.reason}"
        return f"{path} is not UTF-8 ({place}): convert it, for example with iconv"
    return f"{path} is not UTF-8: convert it, for example with iconv"


def read_json(path: Path) -> Any:
    """Read the value in a JSON file.

    Raises:
        ValueError: another encoding, or not JSON.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}): delete it and make it again, or copy it again"
        ) from error


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a tab-separated table with a header, in which quotes are characters like others.

    A row that is cut short lacks its last columns.

    Raises:
        ValueError: another encoding.
    """
    text = read_text(path)
    warn_if_cut(path, text)
    header, *lines = text.split("\n")
    columns = header.split("\t")
    return [dict(zip(columns, line.split("\t"), strict=False)) for line in lines if line]


def warn_if_cut(path: Path, text: str) -> None:
    """Warn if the text of a table does not end with a line break: nothing else shows that its last cell was cut."""
    if not text.endswith("\n"):
        log.warning("%s does not end with a line break: if it was cut short, make it again", path)


def unusable(path: Path) -> str:
    """Return why a path is not a file that can be read, such as "is missing"; empty if it is one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "is a link to nothing" if os.path.islink(path) else MISSING
    except (OSError, ValueError) as error:  # ValueError: the name has a null character
        return f"cannot be opened ({getattr(error, 'strerror', None) or error})"
    if not stat.S_ISREG(mode):
        return "is a folder" if stat.S_ISDIR(mode) else OTHER
    return "" if os.access(path, os.R_OK) else f"cannot be opened ({os.strerror(errno.EACCES)})"


def as_path(value: object, name: str) -> Path:
    """Return the path that an argument of a public function is; ``name`` is what the message calls it.

    Raises:
        ValueError: it is neither a text nor a path.
    """
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{name} is not a path ({value!r}): give a text or a pathlib.Path")
    return Path(value)


def real_path(path: Path) -> Path:
    """Return a path without links. Unlike ``Path.resolve``, it leaves a link to itself for the code that opens it."""
    return Path(os.path.realpath(path))


def check_file(path: Path, fix: str) -> Path:
    """Return the path of a file to read.

    Raises:
        ValueError: it is not a regular file that exists; the message ends with ``fix``.
    """
    if fault := unusable(path):
        raise ValueError(f"{path} {fault}: {fix}")
    return Path(path)


def file_name(name: object, source: str) -> str:
    """Return a name that comes from a file, if it can name one file in a folder.

    Args:
        name: the name, such as an id in a manifest.
        source: where the name comes from, for the message: file and line.

    Raises:
        ValueError: the name is empty, too long, a path, which could be in another folder, or has control characters.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or _CONTROL.search(name):
        raise ValueError(f"{source} cannot name a file ({name!r}): use one name without slashes and control characters")
    if len(name.encode()) > LONGEST:
        raise ValueError(f"{source} is too long for a file name ({name[:20]!r}...): use at most {LONGEST} bytes")
    return name


def inside(folder: Path, name: object, source: str) -> Path:
    """Return the path of ``name``, which comes from a file, below ``folder``; see ``file_name`` for the arguments.

    Raises:
        ValueError: the name is absolute or has a part that ``file_name`` refuses.
    """
    path = PurePosixPath(name) if isinstance(name, str) else None
    if path is None or path.is_absolute() or not path.parts or ".." in path.parts or _CONTROL.search(str(path)):
        raise ValueError(f"{source} is not a path inside {folder} ({name!r}): use one without '..' and a first slash")
    return folder / path


def check_folder(path: Path) -> Path:
    """Return the path of a folder to write to, if it exists or can be made.

    Raises:
        ValueError: it, or what should be a folder above it, is something else.
    """
    path = Path(path)
    nearest = next(filter(os.path.lexists, (path, *path.parents)))
    if not nearest.is_dir():
        raise ValueError(f"the output {nearest} is not a folder: name a folder, or a new one")
    return path


def make_folder(path: Path) -> Path:
    """Make a folder, and those above it, unless they exist; return its path.

    Raises:
        ValueError: see ``check_folder``.
    """
    check_folder(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def check_output(path: Path) -> Path:
    """Return the path of a file to write, if it does not exist or is a regular file.

    Raises:
        ValueError: it is a folder, a link (also to a file, because a rename would replace the link) or a device, or its
            folder cannot be made.
    """
    path = Path(path)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        kind = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "a device or pipe"
        raise ValueError(f"the output {path} is {kind}: name a new file, or one to replace")
    check_folder(path.parent)
    return path


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the errors of writing a file inside the block name it; those of a full disk do not.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        # numpy's errors have no number
        reason = error.strerror or f"cannot be written completely, is the disk full? ({error})"
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; the file written there replaces ``path`` when the block ends without an error.

    Raises:
        ValueError: see ``check_output``.
        OSError: the file cannot be written; the error names it.
    """
    path = check_output(path)
    part = make_folder(path.parent) / f"{path.name}.part"
    try:
        with naming(path):
            part.unlink(missing_ok=True)  # of a killed run, or a link to somewhere else
            yield part
            os.replace(part, path)  # atomic within a file system
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, and the folders above it, as ``replacing`` does."""
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 as ``write_bytes`` does, with the line ends of ``text``."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, as ``write_text`` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
