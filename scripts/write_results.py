#!/usr/bin/env python3
"""Write FOLDER/RESULTS.md from the records in FOLDER/results and its template; --add copies finished runs there first.

A run whose code had uncommitted changes is refused.
"""

import argparse
from pathlib import Path

from mla_fairseq.errors import user_errors
from mla_fairseq.evaluation.results import add, render
from mla_fairseq.files import write_text


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="worked example, such as examples/mustc")
    parser.add_argument(
        "--add", type=Path, nargs="+", default=[], metavar="RUN", help="run folders, such as runs/demo_st"
    )
    parser.add_argument("--table", help="table that they are rows of, such as translation (with --add)")
    return parser


def main() -> None:
    args = build_parser().parse_args()
    with user_errors(kinds=(ValueError, OSError)):
        if bool(args.add) != bool(args.table):
            raise ValueError("--add and --table belong together: give both, or none to write the file again")
        for run in args.add:
            print(add(args.folder, args.table, run))
        write_text(args.folder / "RESULTS.md", render(args.folder))
        print(args.folder / "RESULTS.md")


if __name__ == "__main__":
    main()
