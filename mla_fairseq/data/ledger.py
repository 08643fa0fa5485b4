"""Record what the files of a folder were made from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mla_fairseq.files import write_text
from mla_fairseq.parsing import parse_json


def fingerprint(*parts: object) -> str:
    """Return a short digest of what a file was made from.

    Parts with equal ``repr`` give equal digests.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(repr(part).encode("utf-8") + b"\0")  # the zero keeps ("ab", "c") apart from ("a", "bc")
    return digest.hexdigest()[:32]


class Ledger:
    """Record in a json file what each product of a folder was made from, so that only outdated ones are made again.

    Raises:
        ValueError: the file is not valid json.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.entries: dict[str, str] = parse_json(self.path.read_text()) if self.path.exists() else {}
            if not isinstance(self.entries, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise ValueError(
                f"{self.path} is not valid json ({error}): delete it, and its products are made again"
            ) from error

    def current(self, product: Path, made_from: str) -> bool:
        """Tell whether the product exists and was made from exactly this."""
        return product.exists() and self.entries.get(product.name) == made_from

    def record(self, product: Path, made_from: str) -> None:
        """Record that the product has just been made."""
        self.record_all({product.name: made_from})

    def record_all(self, entries: dict[str, str]) -> None:
        """Record several entries: name -> what it was made from."""
        self.entries |= entries
        write_text(self.path, json.dumps(self.entries, indent=1, sort_keys=True) + "\n")
