"""The layout of MuST-C on disk: talks as wav files, one yaml of segments and one text file per language and split.

    PAIR/data/SPLIT/wav/TALK.wav
    PAIR/data/SPLIT/txt/SPLIT.yaml      one entry per segment: wav, offset and duration in seconds, speaker_id
    PAIR/data/SPLIT/txt/SPLIT.en        one line per segment, in the yaml's order
    PAIR/data/SPLIT/txt/SPLIT.de

PAIR is a folder such as `en-de`; anything before the languages is allowed (`syn-en-de`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from mla_fairseq.files import read_text
from mla_fairseq.speech import SAMPLE_RATE, audio_length, num_frames

# YAML and text files round offsets, so a segment may claim a little more than its talk holds.
ROUNDING = SAMPLE_RATE // 20
LINE_BREAKS = re.compile(r"[\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")


@dataclass(frozen=True)
class Segment:
    """One utterance: `length` samples of `wav` from sample `start` on, what was said and how it is translated."""

    id: str
    wav: Path
    start: int
    length: int
    speaker: str
    source: str
    target: str

    @property
    def num_frames(self) -> int:
        """Filter bank frames (10 ms) that this segment gives."""
        return num_frames(self.length)


class Corpus:
    """One language pair of a corpus in MuST-C's layout.

    Raises ValueError, naming the file and the mend, where the folder does not follow the layout.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        if not (self.root / "data").is_dir():
            raise ValueError(
                f"{self.root / 'data'} is no folder: PAIR/data/SPLIT/{{wav,txt}} is expected, as in MuST-C"
            )

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that are there, train first."""
        found = {path.parent.name for part in ("txt", "wav") for path in (self.root / "data").glob(f"*/{part}")}
        if not found:
            raise ValueError(f"{self.root / 'data'} holds no split: SPLIT/txt and SPLIT/wav are expected in it")
        return tuple(sorted(found, key=lambda name: (not name.startswith("train"), name)))

    @cached_property
    def languages(self) -> tuple[str, str]:
        """Source and target language: the end of the folder's name for which text files exist (`syn-en-de`: en, de)."""
        parts = self.root.resolve().name.split("-")
        txt = self.root / "data" / self.splits[0] / "txt"
        for middle in range(len(parts) - 1, 0, -1):
            target = "-".join(parts[middle:])
            for first in range(middle - 1, -1, -1):
                source = "-".join(parts[first:middle])
                if all((txt / f"{self.splits[0]}.{language}").is_file() for language in (source, target)):
                    return source, target
        there = ", ".join(sorted(path.name for path in txt.glob("*"))) or "nothing"
        raise ValueError(
            f"{txt} holds {there}: no two text files fit the folder's name {self.root.resolve().name!r}; "
            f"name the folder SOURCE-TARGET and the texts {self.splits[0]}.SOURCE and {self.splits[0]}.TARGET"
        )

    def read(self, split: str) -> list[Segment]:
        """All segments of a split, by talk and then by time. Checks files, line counts and every talk's audio."""
        folder = self.root / "data" / split
        if split not in self.splits:
            raise ValueError(f"{folder} is not there: splits of {self.root} are {', '.join(self.splits)}")
        listing = folder / "txt" / f"{split}.yaml"
        entries = _read_yaml(listing)
        texts = [_read_lines(folder / "txt" / f"{split}.{name}", listing, len(entries)) for name in self.languages]
        lengths = {wav: audio_length(folder / "wav" / wav) for wav in sorted({entry["wav"] for entry in entries})}
        places = [_samples(entry, lengths[entry["wav"]], listing) for entry in entries]
        rows = sorted(zip(entries, places, *texts, strict=True), key=lambda row: (row[0]["wav"], row[1]))
        return list(_segments(folder / "wav", rows))


def _segments(wavs: Path, rows: list[tuple[dict[str, str], tuple[int, int], str, str]]) -> Iterator[Segment]:
    """Segments from sorted (entry, place, source, target); the id counts the segments of a talk."""
    seen = Counter()
    for entry, (start, length), source, target in rows:
        wav = wavs / entry["wav"]
        name = f"{wav.stem}_{seen[wav.stem]}"
        yield Segment(name, wav, start, length, entry.get("speaker_id", ""), source, target)
        seen[wav.stem] += 1


def _read_text(path: Path) -> str:
    try:
        return read_text(path, newline="")
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: every split needs its yaml and one text file per language") from error


def _read_yaml(path: Path) -> list[dict[str, str]]:
    """The segment list. All values stay strings: YAML would read a speaker 007 as 7 and `no` as False."""
    text = _read_text(path)
    try:
        entries = yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)) or []
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML ({error}): copy it again") from error
    if not entries:
        raise ValueError(f"{path} lists no segment: leave the split out or fill it")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not {"wav", "offset", "duration"} <= entry.keys():
            raise ValueError(f"{path}: entry {number} is {entry!r}, but wav, offset and duration are needed")
    return entries


def _read_lines(path: Path, listing: Path, expected: int) -> list[str]:
    """Lines of a text file, without tabs or breaks inside (they would break the manifest)."""
    lines = _read_text(path).split("\n")
    if lines[-1] == "":
        lines.pop()
    if len(lines) != expected:
        raise ValueError(f"{path} has {len(lines)} lines, but {listing.name} has {expected} segments: copy both again")
    return [LINE_BREAKS.sub(" ", line).strip() for line in lines]


def _samples(entry: dict[str, str], available: int, listing: Path) -> tuple[int, int]:
    """First sample and number of samples of an entry whose talk holds `available` samples."""
    try:
        start, length = (round(float(entry[key]) * SAMPLE_RATE) for key in ("offset", "duration"))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{listing}: {entry!r}: offset and duration must be numbers of seconds") from error
    if start < 0 or length <= 0:
        raise ValueError(f"{listing}: {entry!r}: offset must not be negative and duration must be above 0")
    if start + length > available + ROUNDING:
        raise ValueError(
            f"{listing}: a part of {entry['wav']} ends at {(start + length) / SAMPLE_RATE:.2f} s, but the file holds "
            f"{available / SAMPLE_RATE:.2f} s: the audio is cut short (copy it again) or the list is another's"
        )
    return start, min(length, available - start)
