"""Read where the segments of recordings are, and their reference translations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mla_fairseq.evaluation.instances import Instance
from mla_fairseq.files import check_file, read_text
from mla_fairseq.parsing import parse_yaml

_AGAIN = "write it with mla-segments --unsegmented, or use the yaml of the corpus"
_TOLERANCE = 0.5  # seconds by which the times of a corpus may be beyond the end of a recording


@dataclass(frozen=True)
class ReferenceSegment:
    """A segment of the recording ``wav``: its start and length in seconds, and its reference translation."""

    wav: str
    offset: float
    duration: float
    reference: str


def read_segmentation(path: Path, references: Path) -> list[ReferenceSegment]:
    """Return all segments, those of a recording together.

    Args:
        path: YAML with ``wav``, ``offset`` and ``duration`` (seconds) of each segment, as in MuST-C. The segments of
            a recording are in the order of time; recordings may alternate.
        references: text with a line for each segment, in the same order.

    Raises:
        ValueError: files that cannot be read, or do not fit each other; recordings of equal names; segments that are
            not in the order of time.
    """
    text = read_text(check_file(path, _AGAIN))
    try:
        entries = parse_yaml(text, strings=True)
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML ({error}): {_AGAIN}") from error
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} is not a list of segments: {_AGAIN}")
    lines = read_text(check_file(references, _AGAIN)).removesuffix("\n").split("\n")
    if len(lines) != len(entries):
        raise ValueError(
            f"{references} has {len(lines)} lines, but {path} has {len(entries)} segments: give the pair that "
            "mla-segments --unsegmented wrote"
        )
    segments = [
        _segment(f"{path}: entry {number}", entry, line.strip())
        for number, (entry, line) in enumerate(zip(entries, lines, strict=True), start=1)
    ]
    order = {wav: place for place, wav in enumerate(_recordings(segments).values())}
    _check_order(path, segments)
    return sorted(segments, key=lambda one: order[one.wav])


def _check_order(path: Path, segments: Sequence[ReferenceSegment]) -> None:
    """Check that the segments of a recording are in the order of time, as their references should be."""
    before: dict[str, float] = {}
    for number, one in enumerate(segments, start=1):
        if one.offset < before.get(one.wav, 0):
            raise ValueError(
                f"{path}: entry {number} ({one.wav}, {one.offset:g} s) comes after a later one of the same recording "
                f"({before[one.wav]:g} s): sort it and its references by time"
            )
        before[one.wav] = one.offset


def _segment(where: str, entry: Any, reference: str) -> ReferenceSegment:
    """Return the segment of an entry; ``where`` is its place, for messages."""
    try:
        offset, duration = float(entry["offset"]), float(entry["duration"])
        if isinstance(entry["wav"], str) and 0 <= offset < math.inf and 0 < duration < math.inf:
            return ReferenceSegment(entry["wav"], offset, duration, reference)
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"{where} lacks a wav, an offset or a positive duration in seconds ({entry!r}): {_AGAIN}")


def _recordings(segments: Sequence[ReferenceSegment]) -> dict[str, str]:
    """Return the recordings by their names without folder and suffix, in the order of the list.

    Raises:
        ValueError: recordings of equal names.
    """
    found: dict[str, str] = {}
    for segment in segments:
        other = found.setdefault(Path(segment.wav).stem, segment.wav)
        if other != segment.wav:
            raise ValueError(f"{other} and {segment.wav} have the same name: rename one, in the log too")
    return found


def by_recording(instances: Sequence[Instance], segments: Sequence[ReferenceSegment]) -> dict[str, Instance]:
    """Return the translation of each recording, in the order of the segments.

    Raises:
        ValueError: a recording without translation or with several, a translation of something else, or a segment
            beyond the end of a recording.
    """
    names, found = _recordings(segments), {}
    for instance in instances:
        source = instance.source[0] if instance.source else ""
        wav = names.get(Path(source).stem)
        if wav is None:
            raise ValueError(
                f"sentence {instance.index} translates {source!r}, which is no recording of the segmentation "
                f"({next(iter(names.values()))}, ...): translate whole recordings, or give their segmentation"
            )
        if wav in found:
            raise ValueError(f"{wav} is translated twice (sentence {instance.index}): translate whole recordings once")
        found[wav] = instance
    for wav in names.values():
        if wav not in found:
            raise ValueError(f"{wav} is not translated: translate it, or leave it out of the segmentation")
    for segment in segments:
        end, length = segment.offset + segment.duration, found[segment.wav].source_length / 1000
        if end > length + _TOLERANCE:
            raise ValueError(
                f"a segment of {segment.wav} is from {segment.offset:g} to {end:g} s, but the log has {length:g} s of "
                f"that recording (sentence {found[segment.wav].index}): translate the whole recording, or give its "
                "segmentation"
            )
    return {wav: found[wav] for wav in names.values()}
