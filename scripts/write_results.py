#!/usr/bin/env python3
"""Write FOLDER/RESULTS.md from the records and the template in FOLDER/results.

--add first copies the records of finished runs. Runs whose code had uncommitted changes are refused.
"""

import argparse
from pathlib import Path

from mla_fairseq.errors import user_errors
from mla_fairseq.evaluation.results import add, render
from mla_fairseq.files import write_text


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a worked example, such as examples/mustc")
    parser.add_argument(
        "--add",
        type=Path,
        nargs="+",
        default=[],
        metavar="RUN",
        help="run folders, such as runs/demo_st (default: none)",
    )
    parser.add_argument("--table", help="table of the added runs, such as translation; needed with --add")
    return parser


def main() -> None:
    """Add the runs and write the file."""
    args = build_parser().parse_args()
    with user_errors(types=(ValueError, OSError)):
        if bool(args.add) != bool(args.table):
            raise ValueError("--add and --table are needed together: give both, or none to write the file again")
        for run in args.add:
            print(add(args.folder, args.table, run))
        write_text(args.folder / "RESULTS.md", render(args.folder))
        print(args.folder / "RESULTS.md")


if __name__ == "__main__":
    main()
