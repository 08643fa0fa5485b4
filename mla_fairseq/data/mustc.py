"""Read corpora in MuST-C's layout: talks as wav files, and per split one yaml of segments and one text per language.

    PAIR/data/SPLIT/wav/TALK.wav
    PAIR/data/SPLIT/txt/SPLIT.yaml      one entry per segment: wav, offset and duration in seconds, speaker_id
    PAIR/data/SPLIT/txt/SPLIT.en        one line per segment, in the yaml's order
    PAIR/data/SPLIT/txt/SPLIT.de

PAIR is a folder such as ``en-de``; its name may have a prefix (``syn-en-de``).
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from mla_fairseq.data.corpus import LINE_BREAKS, Corpus, Entry, read_lines, read_part, split_order
from mla_fairseq.files import inside, real_path
from mla_fairseq.parsing import parse_yaml


class MuSTC(Corpus):
    """One language pair of a corpus in MuST-C's layout."""

    layout: ClassVar[str] = "mustc"
    needs: ClassVar[str] = "PAIR/data/SPLIT/{wav,txt}"

    @classmethod
    def found(cls, root: Path) -> bool:
        """Tell whether DATA/PAIR/data exists."""
        return (root / "data").is_dir()

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Names of the existing splits, train first."""
        found = {path.parent.name for part in ("txt", "wav") for path in (self.root / "data").glob(f"*/{part}")}
        if not found:
            raise ValueError(f"{self.root / 'data'} contains no split: add the folders SPLIT/txt and SPLIT/wav")
        return split_order(found)

    @cached_property
    def languages(self) -> tuple[str, str]:
        """Source and target language: the last parts of the folder's name for which text files exist."""
        txt = self.root / "data" / self.splits[0] / "txt"
        for pair in self.name_parts:
            if all(os.path.lexists(txt / f"{self.splits[0]}.{language}") for language in pair):
                return pair
        files = ", ".join(sorted(path.name for path in txt.glob("*"))) or "no file"
        raise ValueError(
            f"no text files of {txt} ({files}) match the folder name {real_path(self.root).name!r}: "
            f"name the folder SOURCE-TARGET and the texts {self.splits[0]}.SOURCE and {self.splits[0]}.TARGET"
        )

    def entries(self, split: str) -> list[Entry]:
        """Return the entries of the yaml, with the texts of the same lines."""
        folder = self.root / "data" / split
        listing = folder / "txt" / f"{split}.yaml"
        found = _read_yaml(listing)
        source, target = (
            read_lines(folder / "txt" / f"{split}.{name}", listing, len(found)) for name in self.languages
        )
        return [
            Entry(
                audio=self.audio(inside(folder / "wav", entry["wav"], f"a wav in {listing}")),
                offset=entry["offset"],
                duration=entry["duration"],
                speaker=entry.get("speaker_id", ""),
                source=source[index],
                target=target[index],
                line=index + 1,
                place=f"{listing}: entry {index + 1}",
            )
            for index, entry in enumerate(found)
        ]

    def audio(self, path: Path) -> Path:
        """Return the recording that the yaml names ``path``."""
        return path

    def text_place(self, split: str, language: str, line: int) -> str:
        """Return file and line of a text, for messages."""
        return f"{self.root / 'data' / split / 'txt' / f'{split}.{language}'}:{line}"


def _read_yaml(path: Path) -> list[dict[str, str]]:
    """Return the entries of the segment list, all values as strings."""
    text = read_part(path)
    try:
        entries = parse_yaml(text, strings=True) or []
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML ({error}): copy it again") from error
    if not entries:
        raise ValueError(f"{path} lists no segment: add segments or remove the split")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not {"wav", "offset", "duration"} <= entry.keys():
            raise ValueError(f"{path}: entry {number} lacks wav, offset or duration ({entry!r}): add them")
        for key in ("offset", "duration", "speaker_id"):  # MuSTC.entries checks wav
            value = entry.get(key, "")
            if not isinstance(value, str) or LINE_BREAKS.search(value):  # which manifests could not keep
                raise ValueError(f"{path}: {key} of entry {number} is not one line of text ({value!r}): correct it")
    return entries
