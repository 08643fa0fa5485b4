"""Draws quality against latency: a line for each system, its offline BLEU dashed, as png and svg.

Tables are tab-separated, as mla-sweep writes them: system, k (or chunk), then figures such as
bleu, chrf, al, laal, al_ca and offline_bleu.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from mla_fairseq.errors import needs, user_errors
from mla_fairseq.evaluation.quality_latency import draw_quality_latency, read_points


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mla-plot", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("points", type=Path, nargs="+", metavar="POINTS.tsv", help="tables of what is compared")
    parser.add_argument("--output", type=Path, required=True, metavar="STEM", help="the pictures' path without suffix")
    parser.add_argument("--latency", default="al", help="column along the bottom, such as al, laal, dal or al_ca")
    parser.add_argument("--quality", default="bleu", help="column up the side: bleu or chrf")
    parser.add_argument("--title", default="", help="written above the picture")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    with needs("plots"), user_errors():
        points = [point for table in args.points for point in read_points(table)]
        pictures = draw_quality_latency(points, args.output, args.latency, args.quality, args.title)
    print("\n".join(map(str, pictures)))
