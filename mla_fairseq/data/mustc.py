"""Read corpora in MuST-C's layout: talks as wav files, and per split one yaml of segments and one text per language.

    PAIR/data/SPLIT/wav/TALK.wav
    PAIR/data/SPLIT/txt/SPLIT.yaml      one entry per segment: wav, offset and duration in seconds, speaker_id
    PAIR/data/SPLIT/txt/SPLIT.en        one line per segment, in the yaml's order
    PAIR/data/SPLIT/txt/SPLIT.de

PAIR is a folder such as ``en-de``; its name may have a prefix (``syn-en-de``).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mla_fairseq.files import inside, read_text, real_path
from mla_fairseq.parsing import parse_yaml
from mla_fairseq.speech import SAMPLE_RATE, audio_length, num_frames

# Listings round offsets and durations, so a segment may end up to 50 ms after its talk.
ROUNDING = SAMPLE_RATE // 20
LINE_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")  # and other control characters


@dataclass(frozen=True)
class Segment:
    """One utterance: ``length`` samples of ``wav`` from sample ``start``, its transcript and its translation."""

    id: str
    wav: Path
    start: int
    length: int
    speaker: str
    source: str
    target: str
    line: int  # of the texts

    @property
    def num_frames(self) -> int:
        """Number of filter-bank frames (10 ms each)."""
        return num_frames(self.length)


class Corpus:
    """One language pair of a corpus in MuST-C's layout.

    Raises:
        ValueError: the folder does not follow the layout; so do the methods.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if not (self.root / "data").is_dir():
            raise ValueError(
                f"{self.root / 'data'} is not a folder: arrange the corpus as PAIR/data/SPLIT/{{wav,txt}}, as in MuST-C"
            )

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Names of the existing splits, train first."""
        found = {path.parent.name for part in ("txt", "wav") for path in (self.root / "data").glob(f"*/{part}")}
        if not found:
            raise ValueError(f"{self.root / 'data'} contains no split: add the folders SPLIT/txt and SPLIT/wav")
        return tuple(sorted(found, key=lambda name: (not name.startswith("train"), name)))

    @cached_property
    def languages(self) -> tuple[str, str]:
        """Source and target language: the last parts of the folder's name for which text files exist."""
        parts = real_path(self.root).name.split("-")
        txt = self.root / "data" / self.splits[0] / "txt"
        # a language may contain dashes (pt-br): try the shortest target, then the shortest source
        for middle in range(len(parts) - 1, 0, -1):
            target = "-".join(parts[middle:])
            for first in range(middle - 1, -1, -1):
                source = "-".join(parts[first:middle])
                if all(os.path.lexists(txt / f"{self.splits[0]}.{language}") for language in (source, target)):
                    return source, target
        files = ", ".join(sorted(path.name for path in txt.glob("*"))) or "no file"
        raise ValueError(
            f"no text files of {txt} ({files}) match the folder name {real_path(self.root).name!r}: "
            f"name the folder SOURCE-TARGET and the texts {self.splits[0]}.SOURCE and {self.splits[0]}.TARGET"
        )

    def read(self, split: str) -> list[Segment]:
        """Return all segments of a split, sorted by talk and then by time.

        Raises:
            ValueError: an unknown split, or a listing, text or talk that is missing or does not fit the others.
        """
        folder = self.root / "data" / split
        if split not in self.splits:
            raise ValueError(f"{folder} is not a split: choose one of the splits {', '.join(self.splits)}")
        listing = folder / "txt" / f"{split}.yaml"
        entries = _read_yaml(listing)
        texts = [_read_lines(folder / "txt" / f"{split}.{name}", listing, len(entries)) for name in self.languages]
        wavs = [inside(folder / "wav", entry["wav"], f"a wav in {listing}") for entry in entries]
        lengths = {wav: audio_length(wav) for wav in sorted(set(wavs))}
        places = [_samples(entry, lengths[wav], listing) for entry, wav in zip(entries, wavs, strict=True)]
        rows = sorted(
            zip(entries, places, *texts, range(1, len(entries) + 1), strict=True),
            key=lambda row: (row[0]["wav"], row[1]),
        )
        return list(_segments(folder / "wav", rows))

    def check_texts(self, split: str, segments: Iterable[Segment], language: str) -> None:
        """Check that a set to score has a text for each segment, or is a set without any.

        Raises:
            ValueError: a text is empty; the message names its line.
        """
        column = "source" if language == self.languages[0] else "target"
        lines = {one.line: getattr(one, column) for one in segments}
        empty = [line for line, text in lines.items() if not text]
        if 0 < len(empty) < len(lines):
            path = self.root / "data" / split / "txt" / f"{split}.{language}"
            raise ValueError(
                f"{path}:{min(empty)} is empty, so it cannot be scored: add the text, or remove the segment"
            )


def _segments(wavs: Path, rows: list[tuple[dict[str, str], tuple[int, int], str, str, int]]) -> Iterator[Segment]:
    """Yield segments from sorted (entry, place, source, target, line); the id counts the segments of a talk."""
    seen: Counter[str] = Counter()
    for entry, (start, length), source, target, line in rows:
        wav = wavs / entry["wav"]
        name = f"{wav.stem}_{seen[wav.stem]}"
        yield Segment(name, wav, start, length, entry.get("speaker_id", ""), source, target, line)
        seen[wav.stem] += 1


def _read_text(path: Path) -> str:
    """Return the text of a file with its line ends unchanged."""
    try:
        return read_text(path, newline="")
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} is missing: add it, every split needs a yaml and one text file per language"
        ) from error


def _read_yaml(path: Path) -> list[dict[str, str]]:
    """Return the entries of the segment list, all values as strings."""
    text = _read_text(path)
    try:
        entries = parse_yaml(text, strings=True) or []
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML ({error}): copy it again") from error
    if not entries:
        raise ValueError(f"{path} lists no segment: add segments or remove the split")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not {"wav", "offset", "duration"} <= entry.keys():
            raise ValueError(f"{path}: entry {number} lacks wav, offset or duration ({entry!r}): add them")
        for key in ("offset", "duration", "speaker_id"):  # Corpus.read checks wav
            value = entry.get(key, "")
            if not isinstance(value, str) or LINE_BREAKS.search(value):  # which manifests could not keep
                raise ValueError(f"{path}: {key} of entry {number} is not one line of text ({value!r}): correct it")
    return entries


def _read_lines(path: Path, listing: Path, expected: int) -> list[str]:
    """Return the lines of a text file, with spaces for tabs and breaks inside, which would break the manifest."""
    lines = _read_text(path).split("\n")
    if lines[-1] == "":
        lines.pop()  # the file ended with a line break
    if len(lines) != expected:
        raise ValueError(f"{path} has {len(lines)} lines, but {listing.name} has {expected} segments: copy both again")
    return [LINE_BREAKS.sub(" ", line).strip() for line in lines]


def _samples(entry: dict[str, str], available: int, listing: Path) -> tuple[int, int]:
    """Return the first sample and the number of samples of an entry whose talk has ``available`` samples."""
    try:
        start, length = (round(float(entry[key]) * SAMPLE_RATE) for key in ("offset", "duration"))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{listing}: offset or duration is not a number ({entry!r}): give seconds") from error
    if start < 0 or length <= 0:
        raise ValueError(f"{listing}: offset is negative or duration is not positive ({entry!r}): correct the entry")
    if start + length > available + ROUNDING:
        raise ValueError(
            f"{listing}: a segment ends at {(start + length) / SAMPLE_RATE:.2f} s, after the end of {entry['wav']} "
            f"({available / SAMPLE_RATE:.2f} s): copy the audio again, or correct the entry"
        )
    return start, min(length, available - start)
