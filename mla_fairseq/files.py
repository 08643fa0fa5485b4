"""Files that are written whole or not at all: a reader, or a killed run, never leaves or meets half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """A text in UTF-8, without the mark that some editors put at its beginning.

    Raises:
        ValueError: another encoding.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 ({error}): save it so") from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, and the folders above it, under a temporary name first."""
    part = Path(f"{path}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(data)
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8 with the line ends as they are in `text`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """As `write_text`, indented for readers."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
