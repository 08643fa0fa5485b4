"""Write files completely or not at all, so that no reader meets half of one and no killed run leaves one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def user_dir() -> str:
    """Return the folder of this package for ``--user-dir``: relative if it is below the current folder."""
    folder = Path(__file__).resolve().parent
    return os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)


def read_text(path: Path, newline: str | None = None) -> str:
    """Read a UTF-8 text, without the byte order mark that some editors write.

    Args:
        path: the file.
        newline: as in ``open``.

    Raises:
        ValueError: another encoding.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): convert it, for example with iconv") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, and the folders above it, under a temporary name first."""
    part = Path(f"{path}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(data)
    os.replace(part, path)  # atomic within a file system


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8 as ``write_bytes`` does, with the line ends of ``text``."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, as ``write_text`` does."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
