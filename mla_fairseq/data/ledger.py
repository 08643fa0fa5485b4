"""The ledger of what the files of a folder were made from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mla_fairseq.files import write_text


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
        try:
            self.entries: dict[str, str] = json.loads(self.path.read_text()) if self.path.exists() else {}
        except ValueError as error:
            raise ValueError(
                f"{self.path} is broken ({error}): delete it, and what it tells of is made again"
            ) from error

    def current(self, product: Path, made_from: str) -> bool:
        """Whether the product is there and was made from exactly this."""
        return product.exists() and self.entries.get(product.name) == made_from

    def record(self, product: Path, made_from: str) -> None:
        """Note that the product has just been made."""
        self.record_all({product.name: made_from})

    def record_all(self, entries: dict[str, str]) -> None:
        """Note what things are made from, by name."""
        self.entries |= entries
        write_text(self.path, json.dumps(self.entries, indent=1, sort_keys=True) + "\n")
