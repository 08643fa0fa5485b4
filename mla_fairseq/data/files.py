"""Small files that are written whole or not at all, and the ledger of what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name first, so that a reader never meets half of it."""
    part = Path(f"{path}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(data)
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8 with the line ends as they are in `text`."""
    write_bytes(path, text.encode("utf-8"))


def fingerprint(*parts: object) -> str:
    """A short digest of what a file was made from; equal parts (by their repr) give equal digests."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode("utf-8") + b"\0")
    return digest.hexdigest()[:32]


class Ledger:
    """Remembers, in one json file, from what each product of a folder was made, so that only stale ones are redone."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.entries: dict[str, str] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def current(self, product: Path, made_from: str) -> bool:
        """Whether the product is there and was made from exactly this."""
        return product.exists() and self.entries.get(product.name) == made_from

    def record(self, product: Path, made_from: str) -> None:
        """Note that the product has just been made."""
        self.entries[product.name] = made_from
        write_text(self.path, json.dumps(self.entries, indent=1, sort_keys=True) + "\n")
