"""Cut a split of a corpus in MuST-C's layout into one wav per segment, for simuleval.

DATA/PAIR/data/SPLIT/{wav,txt}  ->  OUTPUT/SPLIT/*.wav, OUTPUT/SPLIT.wav_list and OUTPUT/SPLIT.TARGET, for

    simuleval --source OUTPUT/SPLIT.wav_list --target OUTPUT/SPLIT.TARGET ...

The order is that of mla-prepare's manifests. A stopped run leaves only complete files; run it again to finish.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from mla_fairseq.cli.options import Help, add_data, data_root, run_command
from mla_fairseq.data.mustc import Corpus
from mla_fairseq.data.segments import cut_segments


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-segments``."""
    parser = argparse.ArgumentParser(prog="mla-segments", description=__doc__, formatter_class=Help)
    add_data(parser)
    parser.add_argument("--pair", required=True, help="language pair (a folder of DATA), such as en-de")
    parser.add_argument("--split", default="tst-COMMON", help="split to cut")
    parser.add_argument("--output", type=Path, required=True, help="folder for the wav files and the two lists")
    parser.add_argument("--limit", type=int, help="number of segments, from the first (default: all)")
    return parser


def run(args: argparse.Namespace) -> None:
    """Cut the split, and print how to use it.

    Raises:
        ValueError, OSError: the corpus or the options cannot be used.
    """
    corpus = Corpus(data_root(args.data) / args.pair)
    sources, targets = cut_segments(corpus, args.split, args.output, args.limit)
    logging.info("ready: simuleval --source %s --target %s", sources, targets)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-segments``."""
    run_command(build_parser(), run, argv, logging.INFO)
