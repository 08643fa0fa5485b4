"""Cut a split of a corpus into one wav per segment, or list its whole talks, for simuleval.

DATA/PAIR (or where the layout has it)  ->  OUTPUT/SPLIT/*.wav, OUTPUT/SPLIT.wav_list and OUTPUT/SPLIT.TARGET, for

    simuleval --source OUTPUT/SPLIT.wav_list --target OUTPUT/SPLIT.TARGET ...

The order is that of mla-prepare's manifests. A stopped run leaves only complete files; run it again to finish.

With --unsegmented, for agents with --long-form, which translate whole talks:

    simuleval --source OUTPUT/SPLIT.talks.wav_list --target OUTPUT/SPLIT.talks.TARGET ...
    mla-evaluate --long-form OUTPUT/SPLIT.segments.yaml --references OUTPUT/SPLIT.segments.TARGET LOG
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from mla_fairseq.cli.options import Help, add_data, open_pair, run_command
from mla_fairseq.data.segments import cut_segments, list_talks


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-segments``."""
    parser = argparse.ArgumentParser(prog="mla-segments", description=__doc__, formatter_class=Help)
    add_data(parser)
    parser.add_argument("--pair", required=True, help="language pair, such as en-de")
    parser.add_argument("--split", default="tst-COMMON", help="split to cut")
    parser.add_argument("--output", type=Path, required=True, help="folder for the wav files and the lists")
    parser.add_argument("--limit", type=int, help="number of segments (or talks), from the first (default: all)")
    parser.add_argument("--unsegmented", action="store_true", help="list whole talks, and where their segments are")
    return parser


def run(args: argparse.Namespace) -> None:
    """Cut the split or list its talks, and print how to use that.

    Raises:
        ValueError, OSError: the corpus or the options cannot be used.
    """
    corpus = open_pair(args, args.pair)
    if args.unsegmented:
        talks = list_talks(corpus, args.split, args.output, args.limit)
        logging.info("ready: simuleval --source %s --target %s", talks.sources, talks.targets)
        logging.info("score: mla-evaluate --long-form %s --references %s LOG", talks.segments, talks.references)
        return
    sources, targets = cut_segments(corpus, args.split, args.output, args.limit)
    logging.info("ready: simuleval --source %s --target %s", sources, targets)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-segments``."""
    run_command(build_parser(), run, argv, logging.INFO)
