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

from mla_fairseq.cli.options import Help, add_data, data_root
from mla_fairseq.data.mustc import Corpus
from mla_fairseq.data.segments import cut_segments
from mla_fairseq.errors import user_errors


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-segments``."""
    parser = argparse.ArgumentParser(prog="mla-segments", description=__doc__, formatter_class=Help)
    add_data(parser)
    parser.add_argument("--pair", required=True, help="language pair (a folder of DATA), such as en-de")
    parser.add_argument("--split", default="tst-COMMON", help="split to cut")
    parser.add_argument("--output", type=Path, required=True, help="folder for the wav files and the two lists")
    parser.add_argument("--limit", type=int, help="number of segments, from the first (default: all)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-segments``."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    with user_errors(types=(ValueError, OSError)):
        corpus = Corpus(data_root(args.data) / args.pair)
        sources, targets = cut_segments(corpus, args.split, args.output, args.limit)
    logging.info("ready: simuleval --source %s --target %s", sources, targets)
