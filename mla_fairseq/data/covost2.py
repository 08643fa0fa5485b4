"""Read CoVoST 2: clips of Common Voice 4, and tables of their translations.

    SRC/clips/*.mp3                        as Common Voice has them; or wav, flac or ogg of the same names
    SRC/validated.tsv                      of Common Voice: path, sentence, client_id
    SRC/covost_v2.SRC_TGT.tsv              path, translation, split

or, in place of the last two, the tables that CoVoST's script writes for each split:

    SRC/covost_v2.SRC_TGT.{train,dev,test}.tsv     path, sentence, translation, client_id

The pair SRC-TGT is DATA/SRC and this target language.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from mla_fairseq.data.corpus import Corpus, Entry, find_audio
from mla_fairseq.data.tables import read_table
from mla_fairseq.files import inside

log = logging.getLogger(__name__)
SPLITS = ("train", "dev", "test")
Rows = list[tuple[int, dict[str, str]]]


class CoVoST2(Corpus):
    """One language pair of CoVoST 2."""

    layout: ClassVar[str] = "covost2"
    needs: ClassVar[str] = "SRC/{clips,validated.tsv,covost_v2.SRC_TGT.tsv}"

    @classmethod
    def found(cls, root: Path) -> bool:
        """Tell whether DATA/SRC has a table of this target language."""
        return bool(_languages(root))

    @cached_property
    def languages(self) -> tuple[str, str]:
        """Source and target language of the pair, whose table exists."""
        return _languages(self.root)[0]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits: all three of the whole table, or those that have tables of their own."""
        own = tuple(split for split in SPLITS if self._table(split).exists())
        return SPLITS if self._table().exists() else own

    def entries(self, split: str) -> list[Entry]:
        """Return the clips of a split. Those without a transcript in ``validated.tsv`` are left out, as CoVoST does."""
        path, rows = self._rows(split)
        clips = self.root.parent / self.languages[0] / "clips"
        return [
            Entry(
                audio=find_audio(inside(clips, row["path"], f"path in {path}:{number}")),
                offset=0,
                duration=None,
                speaker=row["client_id"],
                source=row["sentence"],
                target=row["translation"],
                line=number,
                place=f"{path}:{number}",
                id=Path(row["path"]).stem,
            )
            for number, row in rows
        ]

    def text_place(self, split: str, language: str, line: int) -> str:
        """Return table, line and column of a text, for messages."""
        column = "sentence" if language == self.languages[0] else "translation"
        return f"{column} in {self._rows(split)[0]}:{line}"

    def _table(self, split: str = "") -> Path:
        source, target = self.languages
        return self.root.parent / source / f"covost_v2.{source}_{target}{'.' if split else ''}{split}.tsv"

    def _rows(self, split: str) -> tuple[Path, Rows]:
        """Return the table of a split and its rows, with the columns of the tables that CoVoST's script writes."""
        if self._table(split).exists():
            needed = ("path", "sentence", "translation", "client_id")
            return self._table(split), read_table(self._table(split), needed, escaped=True)
        names = (split, f"{split}_covost") if split == "train" else (split,)
        chosen = [row for row in self._whole if row[1]["split"] in names]
        rows = [
            (number, self._transcripts[row["path"]] | row) for number, row in chosen if row["path"] in self._transcripts
        ]
        if not rows:
            raise ValueError(
                f"{self._table()} has {len(chosen)} rows of the split {split}, but none is in validated.tsv: use the "
                "one of Common Voice 4"
            )
        if len(rows) < len(chosen):
            log.info("%s: %d of %d clips are in validated.tsv", split, len(rows), len(chosen))
        return self._table(), rows

    @cached_property
    def _whole(self) -> Rows:
        return read_table(self._table(), ("path", "translation", "split"), escaped=True)

    @cached_property
    def _transcripts(self) -> dict[str, dict[str, str]]:
        """Transcript and speaker of each clip of Common Voice."""
        path = self._table().with_name("validated.tsv")
        columns = ("path", "sentence", "client_id")
        rows = read_table(path, columns, escaped=True)
        return {row["path"]: {name: row[name] for name in columns} for _, row in rows}


def _languages(root: Path) -> list[tuple[str, str]]:
    """Return the languages of a pair for which a table exists: the name may be read in several ways (en-zh-CN)."""
    parts = root.name.split("-")
    pairs = [("-".join(parts[:middle]), "-".join(parts[middle:])) for middle in range(1, len(parts))]
    return [(one, other) for one, other in pairs if any((root.parent / one).glob(f"covost_v2.{one}_{other}.*tsv"))]
