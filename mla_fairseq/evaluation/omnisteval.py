"""Run OmniSTEval (Polák et al. 2025, arXiv 2509.17349): it aligns words with segments and computes latencies.

Its alignment is quadratic in the words of a recording: 10 minutes take about 10 s of CPU and 0.2 GB, an hour some
minutes and 4 GB.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mla_fairseq.errors import UserError, install, needs
from mla_fairseq.evaluation.instances import Instance
from mla_fairseq.evaluation.segmentation import ReferenceSegment
from mla_fairseq.files import read_tsv, write_json, write_text
from mla_fairseq.processes import ending_with

EXTRA = "long-form"
_OLDEST = (0, 1, 10)  # older versions compute other latencies
LATENCIES = {
    f"long_{name}{tail}": f"Long{name.upper()} ({aware})"
    for tail, aware in (("", "CU"), ("_ca", "CA"))
    for name in ("yaal", "laal")
}
"""Names of the latencies here and in OmniSTEval."""


@dataclass(frozen=True)
class AlignedSegment:
    """The words that belong to a reference segment.

    Attributes:
        offset: start of the segment in its recording, in seconds.
        source_length: its length in ms.
        prediction, reference: the words emitted, and those expected.
        reference_length: units of the reference.
        delays: for each unit of the prediction, ms from the start of the segment; negative before it.
    """

    offset: float
    source_length: float
    prediction: str
    reference: str
    reference_length: int
    delays: tuple[float, ...]


def find_version() -> str:
    """Return the version of OmniSTEval.

    Raises:
        UserError: it is not installed, or too old.
    """
    with needs(EXTRA):
        version = metadata.version("omnisteval")
    if tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < _OLDEST:
        raise UserError(f"OmniSTEval is too old ({version}): {install(EXTRA)}")
    return version


def align(folder: Path, found: Mapping[str, Instance], segments: Sequence[ReferenceSegment], unit: str) -> None:
    """Let OmniSTEval align and measure; it writes to ``folder``."""
    timed = all(one.elapsed for one in found.values() if one.units)  # it wants all of them or none
    lines = [json.dumps(_line(wav, one, unit, timed), ensure_ascii=False) for wav, one in found.items()]
    places = [{"wav": one.wav, "offset": one.offset, "duration": one.duration} for one in segments]
    write_text(folder / "log", "\n".join(lines) + "\n")
    write_json(folder / "places.json", places)
    write_text(folder / "references", "".join(f"{one.reference}\n" for one in segments))
    files = ("--hypothesis_file", "log", "--speech_segmentation", "places.json", "--ref_sentences_file", "references")
    command = [Path(sys.executable).with_name("omnisteval"), "longform", *files, f"--{unit}_level", "--no_quality"]
    end = ending_with(os.getpid())  # because it may take minutes
    done = subprocess.run(
        [*map(str, command), "--output_folder", "."], cwd=folder, capture_output=True, text=True, preexec_fn=end
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise ValueError(f"omnisteval cannot score it ({reason}): check log and segmentation")


def _line(wav: str, instance: Instance, unit: str, timed: bool) -> dict[str, Any]:
    """Return the line of a recording as OmniSTEval counts its units."""
    line = {
        "source": [wav],
        "prediction": (" " if unit == "word" else "").join(instance.units),
        "delays": instance.delays,
        "source_length": instance.source_length,
    }
    return {**line, "elapsed": instance.elapsed} if timed else line


def read_aligned(folder: Path, segments: Sequence[ReferenceSegment], unit: str) -> list[AlignedSegment]:
    """Return the words of each segment."""
    text = (folder / "instances.resegmented.jsonl").read_text(encoding="utf-8")
    lines = map(json.loads, text.removesuffix("\n").split("\n"))  # splitlines would split inside of texts, too
    return [
        AlignedSegment(
            segment.offset,
            segment.duration * 1000,
            line["prediction"],
            line["reference"],
            _length(line["reference"], unit),
            tuple(line.get("emission_cu", ())),
        )
        for segment, line in zip(segments, lines, strict=True)
    ]


def read_latencies(folder: Path) -> dict[str, float | None]:
    """Return the latencies that OmniSTEval could compute."""
    table = {row["metric"]: float(row["value"]) for row in read_tsv(folder / "scores.tsv")}
    values = {key: table.get(name, math.nan) for key, name in LATENCIES.items()}
    return {key: None if math.isnan(value) else value for key, value in values.items()}


def _length(reference: str, unit: str) -> int:
    """Return the number of units of a reference."""
    return len(reference.split()) if unit == "word" else len("".join(reference.split()))
