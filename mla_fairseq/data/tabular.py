"""Read plain manifests: a corpus of your own, as one table per split.

    PAIR/manifest/SPLIT.tsv                tab-separated with a header
    PAIR/manifest/SPLIT.jsonl              or one JSON object per line

Columns: ``audio`` (a path, relative ones from the folder PAIR/manifest), ``offset`` and ``duration`` in seconds
(default: the whole file), ``src_text``, ``tgt_text`` (at least one of them), ``speaker`` and ``id`` (optional). Others
are ignored, but ``--target-column`` names one to train on in place of ``tgt_text``. The last two parts of the name PAIR
are the languages.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

from mla_fairseq.data.corpus import Corpus, Entry, split_order
from mla_fairseq.data.tables import read_table
from mla_fairseq.files import real_path

FOLDER, SUFFIXES = "manifest", (".tsv", ".jsonl")


class Manifests(Corpus):
    """One language pair in plain manifests.

    Attributes:
        target_column: column of the training splits to use in place of ``tgt_text``.
    """

    layout: ClassVar[str] = "manifest"
    needs: ClassVar[str] = "PAIR/manifest/SPLIT.{tsv,jsonl}"
    target_column: str = "tgt_text"

    @classmethod
    def found(cls, root: Path) -> bool:
        """Tell whether DATA/PAIR/manifest has a table."""
        return any(_tables(root))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Names of the existing splits, train first."""
        return split_order(path.stem for path in _tables(self.root))

    @cached_property
    def languages(self) -> tuple[str, str]:
        """Source and target language: the last two parts of the pair's name."""
        parts = real_path(self.root).name.split("-")
        if len(parts) < 2 or not all(parts[-2:]):
            raise ValueError(f"{self.root} does not name two languages: rename it to SOURCE-TARGET, such as en-de")
        return parts[-2], parts[-1]

    def entries(self, split: str) -> list[Entry]:
        """Return the rows of a split's table."""
        path = self._table(split)
        column = self.target_column if split.startswith("train") else "tgt_text"
        needed = ("audio", *((column,) if column != "tgt_text" else ()))
        return [self._entry(path, number, row, column) for number, row in read_table(path, needed)]

    def text_place(self, split: str, language: str, line: int) -> str:
        """Return table, line and column of a text, for messages."""
        return f"{'src_text' if language == self.languages[0] else 'tgt_text'} in {self._table(split)}:{line}"

    def _table(self, split: str) -> Path:
        found = [path for path in _tables(self.root) if path.stem == split]
        if len(found) > 1:
            raise ValueError(f"{split} has two tables ({found[0].name} and {found[1].name}): keep one")
        return found[0]

    def _entry(self, path: Path, number: int, row: dict[str, str], column: str) -> Entry:
        place = f"{path}:{number}"
        if "src_text" not in row and column not in row:
            raise ValueError(f"{place} lacks src_text and {column}: add one of them")
        if not row["audio"]:
            raise ValueError(f"{place}: audio is empty: give the path of a recording")
        return Entry(
            audio=path.parent / row["audio"],
            offset=row.get("offset") or 0,
            duration=row.get("duration") or None,
            speaker=row.get("speaker", ""),
            source=row.get("src_text", ""),
            target=row.get(column, ""),
            line=number,
            place=place,
            id=row.get("id", ""),
        )


def _tables(root: Path) -> list[Path]:
    return sorted(path for path in (root / FOLDER).glob("*.*") if path.suffix in SUFFIXES)
