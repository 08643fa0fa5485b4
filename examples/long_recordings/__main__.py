"""Join the segments of a test set to long recordings, to test what knows where no sentence begins.

DATA/PAIR/data/SPLIT  ->  OUTPUT/PAIR/data/SPLIT, both in MuST-C's layout. Then

    mla-segments --data OUTPUT --pair PAIR --split SPLIT --output LISTS --unsegmented

writes the lists for simuleval and mla-evaluate. The same seed makes the same recordings.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from examples.long_recordings.streams import Shape, write_streams
from mla_fairseq.cli.options import Help, add_data, open_pair, run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m examples.long_recordings``."""
    parser = argparse.ArgumentParser("python -m examples.long_recordings", description=__doc__, formatter_class=Help)
    add_data(parser)
    add = parser.add_argument
    add("--pair", required=True, help="language pair (a folder of DATA), such as en-de")
    add("--split", default="tst-COMMON", help="split to join")
    add("--output", type=Path, required=True, help="folder for the language pair")
    add("--limit", type=int, help="number of segments, from the first (default: all)")
    add("--minutes", type=float, help="length of a recording (default: one recording)")
    add(
        "--pause",
        type=float,
        nargs=2,
        default=Shape.pause,
        metavar=("SHORTEST", "LONGEST"),
        help="pauses between segments, in s; 0 0: none",
    )
    add("--floor", type=float, default=Shape.floor, help="noise in the pauses, in dB of full scale")
    add("--noise", type=float, help="white noise under the whole recording, in dB of full scale (default: none)")
    add("--trim", action="store_true", help="remove the silence at the ends of segments too")
    add("--seed", type=int, default=1, help="seed of pauses and noise")
    return parser


def run(args: argparse.Namespace) -> None:
    """Join the segments.

    Raises:
        ValueError, OSError: the corpus or the options cannot be used.
    """
    shape = Shape(tuple(args.pause), args.floor, args.noise, args.trim, args.minutes, args.seed)
    write_streams(open_pair(args, args.pair), args.split, args.output, shape, args.limit)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``python -m examples.long_recordings``."""
    run_command(build_parser(), run, argv, logging.INFO)


if __name__ == "__main__":
    main()
