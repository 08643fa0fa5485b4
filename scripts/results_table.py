#!/usr/bin/env python3
"""Prints a markdown table of finished runs, with the command that makes each row again."""

import argparse
from pathlib import Path

from mla_fairseq.errors import user_errors
from mla_fairseq.recipes.table import read_results, render


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="run folders, such as runs/*; those without result are left out"
    )
    return parser


def main() -> None:
    args = build_parser().parse_args()
    with user_errors():
        print(render(read_results(args.runs)), end="")


if __name__ == "__main__":
    main()
