"""Files that are written whole or not at all: a reader, or a killed run, never leaves or meets half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_text(path: Path, newline: str | None = None) -> str:
    """A text in UTF-8, without the mark that some editors put at its beginning; ``newline`` as in `open`.

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
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8 with the line ends as they are in `text`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """As `write_text`, indented for readers."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
