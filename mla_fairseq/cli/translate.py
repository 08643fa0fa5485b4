"""Translate audio files with a trained speech translation model.

Prints one line for each file: its name, a tab, and the translation. Any format, sample rate and number of channels that
libsndfile reads is converted. A file that is longer than --max-seconds is cut at its longest pauses, and the
translations of its stretches are joined. A file that cannot be read is reported, the others are translated, and the
exit status is 1.
"""

from __future__ import annotations

import argparse
import io
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from mla_fairseq.cli.options import Help, add_user_dir, import_user_dir, run_command
from mla_fairseq.data import check_manifest
from mla_fairseq.speech import NUM_BINS, SAMPLE_RATE, load_audio
from mla_fairseq.speech.pauses import stretches

if TYPE_CHECKING:
    import numpy as np

    from mla_fairseq.tasks.translation import BatchTranslator

log = logging.getLogger(__name__)
LIMIT = "most tokens of a translation: A * frames (10 ms) + B; this is {}"
DEFAULT = "(default: the longest recording of the training sets in --data)"
SECONDS = 30.0  # where the data folder has no training set: what models of sentences have seen at most


class Recording(NamedTuple):
    """A file to translate: its name as given, and the filter banks (frames, 80) of its stretches."""

    name: str
    features: list[np.ndarray]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-translate``."""
    parser = argparse.ArgumentParser(prog="mla-translate", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("checkpoint", help="checkpoint of fairseq-train; an ensemble is several, separated by colons")
    add("files", nargs="+", metavar="FILE", help="audio file")
    add("--data", type=Path, required=True, metavar="DIR", help="prepared data folder of the model")
    add("--config-yaml", default="config_st.yaml", metavar="FILE", help="data configuration in that folder")
    add_user_dir(parser)
    add("--beam", type=int, default=5, metavar="N", help="size of the beam")
    add("--lenpen", type=float, default=1.0, metavar="P", help="length penalty")
    add("--max-len-a", type=float, default=0.0, metavar="A", help=LIMIT.format("A"))
    add("--max-len-b", type=int, default=200, metavar="B", help=LIMIT.format("B"))
    add("--tgt-lang", metavar="LANG", help="target language of a multilingual model, such as de (default: none)")
    add("--max-seconds", type=float, metavar="S", help="longest stretch of audio in seconds " + DEFAULT)
    add("--pause", type=float, metavar="S", help="cut every file at each pause of at least S seconds, such as 0.3")
    add("--max-tokens", type=int, default=20_000, metavar="N", help="frames (10 ms) in a batch")
    add("--device", default="cpu", help="torch device")
    add("--fp16", action="store_true", help="half precision, for a GPU")
    return parser


def check(args: argparse.Namespace) -> None:
    """Check the numbers.

    Raises:
        ValueError: one is out of range.
    """
    lowest = {"beam": 1, "max_len_a": 0, "max_len_b": 1, "max_seconds": 1, "pause": 0.02, "max_tokens": 1}
    for name, least in lowest.items():
        value = getattr(args, name)
        if value is not None and not value >= least:  # ``not >=`` is true for NaN
            raise ValueError(f"--{name.replace('_', '-')} is {value}: give at least {least}")
    for name in ("lenpen", "max_len_a"):
        if not math.isfinite(value := getattr(args, name)):
            raise ValueError(f"--{name.replace('_', '-')} is {value}: give a finite number")


def load(args: argparse.Namespace) -> BatchTranslator:
    """Return the model.

    Raises:
        ValueError: a flag does not suit it.
    """
    from mla_fairseq.tasks.translation import BatchTranslator  # here: fairseq takes seconds, and --help needs none

    import_user_dir(args.user_dir)
    names = ("beam", "lenpen", "max_len_a", "max_len_b")
    flags = [word for name in names for word in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
    flags += [] if args.tgt_lang is None else ["--tgt-lang", args.tgt_lang]
    translator = BatchTranslator(args.checkpoint, args.data, args.config_yaml, flags, args.device, args.fp16)
    if translator.bins != NUM_BINS:
        raise ValueError(
            f"{args.data / args.config_yaml} has features of {translator.bins} bins, but those of audio files have "
            f"{NUM_BINS}: use a model of data that mla-prepare made"
        )
    return translator


def seconds(args: argparse.Namespace, translator: BatchTranslator) -> float:
    """Return the longest stretch in seconds.

    Raises:
        ValueError: ``--max-seconds`` is above what the model accepts.
    """
    limit = translator.longest / 100
    if args.max_seconds is not None and args.max_seconds > limit:
        raise ValueError(f"--max-seconds is {args.max_seconds:g}, but the model accepts {limit:g} s: lower it")
    return args.max_seconds or min(longest_trained(args.data) or SECONDS, limit)


def longest_trained(data: Path) -> float | None:
    """Return the longest recording of the training sets in a data folder, in seconds; ``None`` if it has none.

    A model of sentences that is given more at once may translate nothing of it.

    Raises:
        ValueError: a manifest is broken.
    """
    found = [count for path in data.glob("train*.tsv") for count in check_manifest.frames(path)]
    return max(1.0, max(found) / 100) if found else None


def read(name: str, longest: float, pause: float | None) -> Recording:
    """Return a file as the features of its stretches; a short one is a single stretch, with all of its silence.

    Raises:
        ValueError: the file cannot be used; the message names it.
    """
    from mla_fairseq.tasks.recordings import audio_features

    if set(name) & set("\t\r\n"):
        raise ValueError(f"the file name has a tab or a line break ({name!r}): rename the file")
    samples = load_audio(Path(name))
    if pause is None and len(samples) <= longest * SAMPLE_RATE:
        return Recording(name, [audio_features(name, samples)])
    places = stretches(samples, longest, pause)
    length = len(samples) / SAMPLE_RATE
    log.warning("%s: %.1f s of audio, cut at pauses into stretches: %d", name, length, len(places))
    return Recording(name, [audio_features(name, samples[start:stop]) for start, stop in places])


def readable(names: Iterable[str], longest: float, pause: float | None, failed: list[str]) -> Iterator[Recording]:
    """Yield the files that can be read; report the others and append their names to ``failed``."""
    for name in names:
        try:
            yield read(name, longest, pause)
        except ValueError as error:
            failed.append(name)
            tqdm.write(f"error: {error}", file=sys.stderr)


def groups(recordings: Iterator[Recording], frames: int) -> Iterator[list[Recording]]:
    """Yield recordings in groups of at least so many frames, except for the last group."""
    group: list[Recording] = []
    for recording in recordings:
        group.append(recording)
        if sum(len(one) for each in group for one in each.features) >= frames:
            yield group
            group = []
    if group:
        yield group


def run(args: argparse.Namespace) -> None:
    """Translate the files and print the lines.

    Raises:
        ValueError: flags, model or data are wrong.
        SystemExit: a file could not be translated.
    """
    check(args)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names need not be UTF-8
    translator = load(args)
    longest = seconds(args, translator)
    failed: list[str] = []
    bar = tqdm(args.files, desc="translate", unit="file", disable=len(args.files) == 1)
    for group in groups(readable(bar, longest, args.pause, failed), args.max_tokens):
        texts = iter(translator.translate([one for each in group for one in each.features], args.max_tokens))
        for name, features in group:
            tqdm.write(f"{name}\t{' '.join(filter(None, (next(texts) for _ in features)))}")
        sys.stdout.flush()
    if failed:
        raise SystemExit(1)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-translate``."""
    run_command(build_parser(), run, argv)
