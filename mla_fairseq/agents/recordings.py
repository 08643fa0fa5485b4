"""Check what SimulEval is about to read: it would end with a traceback that names no file, perhaps after hours."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from mla_fairseq.files import check_file, read_text
from mla_fairseq.speech.audio import check_recording


def check_sources(args: Namespace) -> None:
    """Check the size of segments, the lists of recordings and references, and the recordings.

    Args:
        args: the flags of SimulEval; an agent without ``--source`` runs elsewhere, and has nothing to check.

    Raises:
        ValueError: one of them cannot be used.
    """
    segment, source = getattr(args, "source_segment_size", 1), getattr(args, "source", None)
    if segment < 1:
        raise ValueError(f"--source-segment-size is {segment}: give at least 1 ms, such as 280")
    if source is None or getattr(args, "source_type", None) not in (None, "speech"):
        return
    if args.target is None:
        raise ValueError("--source needs a file of references with a line for each recording: add --target FILE")
    recordings, references = _lines(source, "--source"), _lines(args.target, "--target")
    if len(recordings) != len(references):
        raise ValueError(
            f"--source {source} has {len(recordings)} lines, but --target {args.target} has {len(references)}: give "
            "the pair that mla-segments wrote"
        )
    end = getattr(args, "end_index", -1)
    for path in recordings[getattr(args, "start_index", 0) : None if end < 0 else end]:
        check_recording(Path(path))


def _lines(path: str, flag: str) -> list[str]:
    """Return the lines of a list as SimulEval reads them."""
    check_file(Path(path), f"correct {flag}")
    return [line.strip() for line in read_text(Path(path), mark=True).removesuffix("\n").split("\n")]
