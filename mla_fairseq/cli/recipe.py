"""Run a recipe: prepare the data, train, average, decode, score. Skip what is done, continue what was stopped.

Each section of a recipe holds the flags of one program, whose own parser checks them before anything runs. The plain
commands are printed as they run; --dry-run prints them all and runs nothing.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mla_fairseq.errors import user_errors
from mla_fairseq.recipes import check, load_recipe, run_recipe


def build_parser() -> argparse.ArgumentParser:
    usage = "%(prog)s RECIPE [--set SECTION.KEY=VALUE ...] [--name NAME] [--out OUT] [--dry-run]"
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="mla-recipe", description=__doc__, formatter_class=form, usage=usage)
    parser.add_argument("recipe", type=Path, nargs="?", help="YAML file, such as configs/demo/st.yaml")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="flags to change, such as train.max_update=500; SECTION=null leaves a stage out",
    )
    parser.add_argument("--name", default="", help="folder of this run [the recipe's folder and file, as demo_st]")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of all runs; ${RUNS} in recipes [runs]")
    parser.add_argument("--dry-run", action="store_true", help="print the plain commands, run nothing")
    return parser


def set_up_logging() -> None:
    """Print the messages of this package alone: fairseq and others set up loggers of their own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger().setLevel(logging.WARNING)
    logger = logging.getLogger("mla_fairseq")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def run(args: argparse.Namespace) -> None:
    """Check the recipe, then print its commands or run them.

    Raises:
        ValueError: something in the recipe, or in what it runs, is wrong.
    """
    if args.recipe is None:
        raise ValueError("no recipe is given: name its file before --set")
    data = os.environ.get("DATA") or ("$DATA" if args.dry_run else "")
    recipe = load_recipe(args.recipe, args.out, args.set, args.name, data, cpu=not torch.cuda.is_available())
    check(recipe)
    if args.dry_run:
        print("\n".join(f"# {name}\n{recipe.show(name)}" for name in recipe.stages()))
    else:
        run_recipe(recipe)


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    set_up_logging()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped: the same command continues"))
    try:
        with user_errors(kinds=(ValueError, OSError)):
            run(args)
    except KeyboardInterrupt:
        raise SystemExit("stopped: the same command continues") from None
