"""Read Europarl-ST: speeches of the European Parliament.

    SRC/audios/SPEECH.m4a                  converted to wav, flac, ogg or mp3
    SRC/TGT/SPLIT/segments.lst             one line per segment: SPEECH START END, in seconds
    SRC/TGT/SPLIT/segments.SRC             one line per segment
    SRC/TGT/SPLIT/segments.TGT
    SRC/TGT/SPLIT/speeches.lst             one line per speech
    SRC/TGT/SPLIT/speakers.lst             the speaker of each speech

The pair SRC-TGT is DATA/SRC/TGT; splits are train, train-noisy, dev and test.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar

from mla_fairseq.data.corpus import Corpus, Entry, find_audio, read_lines, read_list, split_order
from mla_fairseq.files import file_name


class EuroparlST(Corpus):
    """One language pair of Europarl-ST."""

    layout: ClassVar[str] = "europarl_st"
    needs: ClassVar[str] = "SRC/audios and SRC/TGT/SPLIT/segments.{lst,SRC,TGT}"

    @classmethod
    def found(cls, root: Path) -> bool:
        """Tell whether DATA/SRC/TGT has lists of segments."""
        return any(_folder(root).glob("*/segments.lst"))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Names of the existing splits, train first."""
        return split_order(path.parent.name for path in _folder(self.root).glob("*/segments.lst"))

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target language: the names of the folders."""
        return _folder(self.root).parent.name, _folder(self.root).name

    def entries(self, split: str) -> list[Entry]:
        """Return the entries of ``segments.lst``, with the texts of the same lines."""
        folder = _folder(self.root) / split
        listing = folder / "segments.lst"
        lines = read_list(listing)
        source, target = (read_lines(folder / f"segments.{name}", listing, len(lines)) for name in self.languages)
        speakers = _speakers(folder)
        found = []
        for number, line in enumerate(lines, start=1):
            speech, start, duration = _parse(line, f"{listing}:{number}")
            texts = (source[number - 1], target[number - 1])
            audio, place = self._audio(speech), f"{listing}:{number}"
            found.append(Entry(audio, start, duration, speakers.get(speech, ""), *texts, number, place))
        return found

    def text_place(self, split: str, language: str, line: int) -> str:
        """Return file and line of a text, for messages."""
        return f"{_folder(self.root) / split / f'segments.{language}'}:{line}"

    def _audio(self, speech: str) -> Path:
        folder = _folder(self.root).parent / "audios"
        path = find_audio(folder / f"{speech}.wav")
        if not path.exists() and (folder / f"{speech}.m4a").exists():
            raise ValueError(
                f"{folder / speech}.m4a cannot be read, as all m4a files: convert all once, with `cd {folder}; "
                'for f in *.m4a; do ffmpeg -i "$f" -ar 16000 -ac 1 "${f%.m4a}.flac"; done`'
            )
        return path


def _folder(root: Path) -> Path:
    """Return DATA/SRC/TGT of DATA/SRC-TGT."""
    source, _, target = root.name.partition("-")
    return root.parent / source / target if target else root


def _parse(line: str, place: str) -> tuple[str, str, float]:
    """Return the speech, start and duration of a line of ``segments.lst``."""
    try:
        speech, start, end = line.split()
        duration = float(end) - float(start)
    except ValueError as error:
        raise ValueError(f"{place} is not SPEECH START END ({line!r}): give the times in seconds") from error
    return file_name(speech, f"the speech in {place}"), start, duration


def _speakers(folder: Path) -> dict[str, str]:
    """Return the speaker of each speech; no speakers if the two lists do not exist."""
    speeches, speakers = folder / "speeches.lst", folder / "speakers.lst"
    if not speeches.exists() or not speakers.exists():
        return {}
    names = read_list(speeches)
    return dict(zip(names, read_lines(speakers, speeches, len(names)), strict=True))
