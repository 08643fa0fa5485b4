"""Draw quality against latency as png and svg: a line for each system, its offline BLEU dashed.

A table is tab-separated, as mla-sweep, mla-sweep-agent and mla-evaluate --points write it: system, k (or chunk, or
setting), then scores such as bleu, chrf, al, laal, al_ca and offline_bleu.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mla_fairseq.cli.options import Help, run_command
from mla_fairseq.errors import needs
from mla_fairseq.evaluation.quality_latency import draw_quality_latency, read_points


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-plot``."""
    parser = argparse.ArgumentParser(prog="mla-plot", description=__doc__, formatter_class=Help)
    parser.add_argument("points", type=Path, nargs="+", metavar="POINTS.tsv", help="tables to compare")
    parser.add_argument("--output", type=Path, required=True, metavar="STEM", help="path of the pictures, no suffix")
    parser.add_argument("--latency", default="al", help="column of the horizontal axis, such as al, laal or al_ca")
    parser.add_argument("--quality", default="bleu", help="column of the vertical axis: bleu or chrf")
    parser.add_argument("--title", default="", help="title above the picture")
    return parser


def run(args: argparse.Namespace) -> None:
    """Draw, and print the paths of the pictures.

    Raises:
        ValueError, OSError: flags or files are wrong.
    """
    with needs("plots"):
        points = [point for table in args.points for point in read_points(table)]
        pictures = draw_quality_latency(points, args.output, args.latency, args.quality, args.title)
    print("\n".join(map(str, pictures)))


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-plot``."""
    run_command(build_parser(), run, argv)
