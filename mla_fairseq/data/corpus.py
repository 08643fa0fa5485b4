"""What all layouts of corpora have in common: recordings, whose segments have transcripts and translations.

The reader of a layout returns the entries of each split. ``Corpus.read`` opens their recordings and makes segments.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from mla_fairseq.files import file_name, read_text, real_path
from mla_fairseq.speech import SAMPLE_RATE, changed_length, num_frames, open_recording
from mla_fairseq.speech.recordings import ROUNDING, Recording

log = logging.getLogger(__name__)
LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")  # and other control characters
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")


@dataclass(frozen=True)
class Segment:
    """One utterance: ``length`` samples at 16 kHz of ``wav`` from sample ``start``, its transcript and translation.

    Features are computed from its samples played ``speed`` times as fast.
    """

    id: str
    wav: Path
    start: int
    length: int
    speaker: str
    source: str
    target: str
    line: int  # of the texts
    speed: float = 1.0

    @property
    def num_frames(self) -> int:
        """Number of filter-bank frames (10 ms each)."""
        return num_frames(changed_length(self.length, self.speed))


@dataclass(frozen=True)
class Entry:
    """A segment as a corpus lists it.

    Attributes:
        audio: the recording.
        offset: start in seconds.
        duration: seconds; ``None``: to the end of the recording.
        speaker, source, target: one line of text each.
        line: number of the line that has the texts, from 1.
        place: file and line, for messages.
        id: name of the segment; empty: that of its recording, and its number there.
    """

    audio: Path
    offset: str | float
    duration: str | float | None
    speaker: str
    source: str
    target: str
    line: int
    place: str
    id: str = ""


class Corpus(ABC):
    """One language pair of a corpus.

    Attributes:
        root: DATA/PAIR, which some layouts have as a folder.
        layout: the layout's name.
        needs: what the layout looks like, for messages.

    Raises:
        ValueError: the files do not follow the layout; so do the methods.
    """

    layout: ClassVar[str]
    needs: ClassVar[str]

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if not self.found(self.root):
            raise ValueError(f"{self.root} has no corpus of layout {self.layout}: arrange it as {self.needs}")

    @classmethod
    @abstractmethod
    def found(cls, root: Path) -> bool:
        """Tell whether a corpus of this layout exists for DATA/PAIR."""

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the existing splits, train first."""

    @property
    @abstractmethod
    def languages(self) -> tuple[str, str]:
        """Source and target language."""

    @abstractmethod
    def entries(self, split: str) -> list[Entry]:
        """Return the entries of an existing split.

        Raises:
            ValueError: a list or text is missing or does not fit the others.
        """

    @abstractmethod
    def text_place(self, split: str, language: str, line: int) -> str:
        """Return file and line of a text, for messages."""

    def read(self, split: str) -> list[Segment]:
        """Return all segments of a split, sorted by recording and then by time.

        Raises:
            ValueError: an unknown split, or a list, text or recording that is missing or does not fit the others.
        """
        if split not in self.splits:
            raise ValueError(
                f"{self.root}: {split} is not a split: choose one of the splits {', '.join(self.splits) or '(none)'}"
            )
        entries = self.entries(split)
        recordings = {path: open_recording(path) for path in sorted({entry.audio for entry in entries})}
        self._warn_of_low_rates(split, recordings)
        places = [_samples(entry, recordings[entry.audio].length) for entry in entries]
        segments = list(
            _segments(sorted(zip(entries, places, strict=True), key=lambda row: (str(row[0].audio), row[1])))
        )
        if repeated := [name for name, count in Counter(one.id for one in segments).items() if count > 1]:
            raise ValueError(f"{self.root}: two segments of {split} have the id {repeated[0]!r}: rename one of them")
        return segments

    def check_texts(self, split: str, segments: Iterable[Segment], language: str) -> None:
        """Check that a set to score has a text for each segment, or is a set without any.

        Raises:
            ValueError: a text is empty; the message names its line.
        """
        column = "source" if language == self.languages[0] else "target"
        lines = {one.line: getattr(one, column) for one in segments}
        empty = [line for line, text in lines.items() if not text]
        if 0 < len(empty) < len(lines):
            raise ValueError(
                f"{self.text_place(split, language, min(empty))} is empty, so it cannot be scored: add the text, or "
                "remove the segment"
            )

    @cached_property
    def name_parts(self) -> list[tuple[str, str]]:
        """Source and target languages that the pair's name can mean: a language may have dashes (pt-br)."""
        parts = real_path(self.root).name.split("-")
        return [
            ("-".join(parts[first:middle]), "-".join(parts[middle:]))
            for middle in range(len(parts) - 1, 0, -1)
            for first in range(middle - 1, -1, -1)
        ]

    def _warn_of_low_rates(self, split: str, recordings: dict[Path, Recording]) -> None:
        if low := [path for path, recording in recordings.items() if recording.rate < SAMPLE_RATE]:
            log.warning(
                "%s: %d recordings have fewer than %d samples per second, such as %s: expect poor translations",
                split, len(low), SAMPLE_RATE, low[0],
            )  # fmt: skip


def split_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of splits, train first."""
    return tuple(sorted(set(names), key=lambda name: (not name.startswith("train"), name)))


def find_audio(given: Path) -> Path:
    """Return the path of a recording, or of the same one in another format if only that exists."""
    if given.exists():
        return given
    return next((path for suffix in SUFFIXES if (path := given.with_suffix(suffix)).exists()), given)


def read_lines(path: Path, listing: Path, expected: int) -> list[str]:
    """Return the lines of a text file, with spaces for tabs and breaks inside, which would break the manifest.

    Raises:
        ValueError: the file is missing, or has not as many lines as ``listing`` has segments.
    """
    lines = read_list(path)
    if len(lines) != expected:
        raise ValueError(f"{path} has {len(lines)} lines, but {listing.name} has {expected} segments: copy both again")
    return lines


def read_list(path: Path) -> list[str]:
    """Return the lines of a text file as ``read_lines`` does."""
    lines = read_part(path).split("\n")
    if lines[-1] == "":
        lines.pop()  # the file ended with a line break
    return [one_line(line) for line in lines]


def one_line(text: str) -> str:
    """Return a text with spaces for tabs, line breaks and other control characters."""
    return LINE_BREAKS.sub(" ", text).strip()


def read_part(path: Path) -> str:
    """Return the text of a file of a corpus with its line ends unchanged.

    Raises:
        ValueError: the file is missing, or is not a text.
    """
    try:
        return read_text(path, newline="")
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: add it, every split needs its list and its texts") from error


def _segments(rows: Iterable[tuple[Entry, tuple[int, int]]]) -> Iterator[Segment]:
    """Yield segments from sorted entries with their samples; an id that is not given counts those of a recording."""
    seen: Counter[str] = Counter()
    for entry, (start, length) in rows:
        stem = entry.audio.stem
        name = file_name(entry.id, f"{entry.place}: the id") if entry.id else f"{stem}_{seen[stem]}"
        yield Segment(name, entry.audio, start, length, entry.speaker, entry.source, entry.target, entry.line)
        seen[stem] += 1


def _samples(entry: Entry, available: int) -> tuple[int, int]:
    """Return the first sample and the number of samples of an entry whose recording has ``available`` samples."""
    try:
        start = round(float(entry.offset) * SAMPLE_RATE)
        length = available - start if entry.duration is None else round(float(entry.duration) * SAMPLE_RATE)
    except (ValueError, OverflowError) as error:
        times = f"{entry.offset!r}, {entry.duration!r}"
        raise ValueError(f"{entry.place}: offset or duration is not a number ({times}): give seconds") from error
    if start < 0 or (length <= 0 and entry.duration is not None):
        times = f"{entry.offset}, {entry.duration}"
        raise ValueError(f"{entry.place}: offset is negative or duration is not positive ({times}): correct the entry")
    # listings round: a segment may end up to 50 ms after its recording
    if start + length > available + ROUNDING * SAMPLE_RATE or start >= available:
        raise ValueError(
            f"{entry.place}: a segment ends at {(start + length) / SAMPLE_RATE:.2f} s, after the end of "
            f"{entry.audio.name} ({available / SAMPLE_RATE:.2f} s): copy the audio again, or correct the entry"
        )
    return start, min(length, available - start)
