#!/usr/bin/env python3
"""Compare finished recipes that were run with several seeds: mean, deviation, and a paired bootstrap test of BLEU.

Runs whose trainings differ only in seed are one system. The first system is the baseline.
"""

import argparse
import shlex
from pathlib import Path
from typing import Any

from mla_fairseq.errors import user_errors
from mla_fairseq.evaluation.seeds import compare
from mla_fairseq.files import check_file, make_folder, read_json, write_json
from mla_fairseq.recipes.process import commit


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished recipes, the baseline's first")
    add("--manifest", type=Path, required=True, metavar="TSV", help="test set in the prepared folder")
    add("--samples", type=int, default=1000, metavar="N", help="resamples of a test (default: %(default)s)")
    add(
        "--earlier",
        type=Path,
        metavar="RECORD",
        help="result.json of an earlier comparison of the same systems with other seeds, or its copy in results/: its "
        "values are added, and its runs are not needed anymore (default: none)",
    )
    add("--output", type=Path, required=True, metavar="DIR", help="folder for result.json, which write_results.py adds")
    return parser


def line(row: dict[str, Any]) -> str:
    """Return what a user wants to see of a system."""
    deviation = row.get("bleu_deviation")
    spread = "" if deviation is None else f" +- {deviation:.1f}"
    test = f", {row['bleu_difference']:+.1f} (p = {row['p_value']:.3f})" if "p_value" in row else ""
    return f"{row['name']}: BLEU {row['bleu']:.1f}{spread}{test}, seeds {row['seeds']}"


def main() -> None:
    """Compare, print a line for each system and write the record."""
    args = build_parser().parse_args()
    with user_errors(types=(ValueError, OSError)):
        earlier = read_json(check_file(args.earlier, "give a result.json")) if args.earlier else {}
        systems = compare(args.runs, args.manifest, args.samples, earlier.get("systems", ()))
        runs = [*earlier.get("runs", ()), *map(str, args.runs)]
        trainings = [*earlier.get("trainings", ()), *(read_json(run / "result.json")["command"] for run in args.runs)]
        # what repeats it all needs no earlier comparison
        again = ["python", "scripts/compare_seeds.py", *runs, "--manifest", str(args.manifest)]
        again += ["--samples", str(args.samples), "--output", str(args.output)]
        record = {
            "name": args.output.name,
            "command": "\n".join([*trainings, shlex.join(again)]),
            "runs": runs,
            "trainings": trainings,
            "seed": ", ".join(dict.fromkeys(row["seeds"] for row in systems)),
            "systems": systems,
            **{key: systems[0].get(key) for key in ("bleu_signature", "chrf_signature", "machine")},
            "commit": commit(),
        }
        write_json(make_folder(args.output) / "result.json", record)
    for row in systems:
        print(line(row))


if __name__ == "__main__":
    main()
