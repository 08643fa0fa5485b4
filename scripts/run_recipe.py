#!/usr/bin/env python3
"""Runs a recipe: prepares the data, trains, averages, decodes, scores; skips what is done, continues what was killed.

The plain commands are printed as they run; --dry-run prints them all and runs nothing.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from mla_fairseq.errors import user_errors
from mla_fairseq.recipes import STAGES, commands_of, context, describe_keys, load_recipe, run_stages

STAGES_HELP = "run only these stages; forced is of recipes of speech alone, simul of recipes of translation"


def build_parser() -> argparse.ArgumentParser:
    names = list(dict.fromkeys(stage.name for stages in STAGES.values() for stage in stages))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", help="recipe, such as configs/demo.yaml")
    parser.add_argument("--stage", nargs="+", default=["all"], choices=[*names, "all"], help=STAGES_HELP)
    parser.add_argument("--redo", nargs="+", default=[], choices=names, help="delete these stages' results, run again")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change recipe keys")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for all runs; ${RUNS} in recipes")
    parser.add_argument("--name", default="", help="folder of this run in --out; empty = the recipe's file name")
    parser.add_argument("--threads", type=int, help="CPU threads of each program; sets run.threads")
    parser.add_argument("--dry-run", action="store_true", help="only print the commands")
    parser.add_argument("--list-keys", action="store_true", help="print all recipe keys and what they mean")
    return parser


def set_up_logging() -> None:
    """Only this package speaks: what it imports sets up loggers of its own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger().setLevel(logging.WARNING)
    logger = logging.getLogger("mla_fairseq")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def main() -> None:
    args = build_parser().parse_args()
    set_up_logging()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command continues"))
    try:
        with user_errors():
            run(args)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command continues") from None


def run(args: argparse.Namespace) -> None:
    if args.list_keys:
        print(describe_keys())
        return
    if args.config is None:
        raise ValueError("name a recipe, such as configs/demo.yaml; --list-keys shows what one may say.")
    placeholder = {"DATA": "$DATA"} if args.dry_run else {}
    overrides = args.set + ([f"run.threads={args.threads}"] if args.threads else [])
    recipe = load_recipe(args.config, {**placeholder, **os.environ, "RUNS": str(args.out)}, overrides, args.name)
    here = context(recipe, args.out)
    if args.dry_run:
        print("\n".join(f"# {stage}\n{command}" for stage, command in commands_of(here)))
        return
    run_stages(here, [] if "all" in args.stage else args.stage, args.redo)


if __name__ == "__main__":
    main()
