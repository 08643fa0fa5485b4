"""Run a recipe: prepare the data, train, average, decode, score. Finished stages are skipped, stopped ones continue.

Each section of a recipe contains the flags of one program, whose parser checks them before anything runs. The plain
commands are printed as they run; --dry-run prints all of them and runs nothing.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mla_fairseq.cli.options import STOPPED, Help
from mla_fairseq.errors import user_errors
from mla_fairseq.recipes import check, load_recipe, run_recipe
from mla_fairseq.recipes.runner import check_run


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-recipe``."""
    usage = "%(prog)s RECIPE [--set SECTION.KEY=VALUE ...] [--name NAME] [--out OUT] [--dry-run]"
    parser = argparse.ArgumentParser(prog="mla-recipe", description=__doc__, formatter_class=Help, usage=usage)
    add = parser.add_argument
    file = "YAML file, or a recipe of the package, such as mustc/st.yaml"
    add("recipe", type=Path, nargs="?", metavar="RECIPE", help=file)
    flags = "flags to change, such as train.max_update=500; SECTION=null leaves a stage out"
    add("--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help=flags)
    add("--name", default="", help="folder of this run (default: folder and file of the recipe, such as demo_st)")
    add("--out", type=Path, default=Path("runs"), help="folder of all runs, ${RUNS} in recipes")
    add("--dry-run", action="store_true", help="print the plain commands, run nothing")
    return parser


def set_up_logging() -> None:
    """Print the messages of this package only; fairseq and others configure loggers of their own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger().setLevel(logging.WARNING)
    logger = logging.getLogger("mla_fairseq")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


def run(args: argparse.Namespace) -> None:
    """Check the recipe, then print its commands or run them.

    Raises:
        ValueError, OSError: the recipe is wrong, or one of its programs failed.
    """
    if args.recipe is None:  # --set takes every word after it
        raise ValueError("no recipe is given: name its file before --set")
    data = os.environ.get("DATA") or ("$DATA" if args.dry_run else "")
    recipe = load_recipe(args.recipe, args.out, args.set, args.name, data, cpu=not torch.cuda.is_available())
    check(recipe)
    if args.dry_run:
        print("\n".join(f"# {name}\n{recipe.show(name)}" for name in recipe.stages()))
        try:
            check_run(recipe)
        except ValueError as error:
            logging.getLogger(__name__).warning("a run would be refused now: %s", error)
    else:
        run_recipe(recipe)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-recipe``."""
    args = build_parser().parse_args(argv)
    set_up_logging()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))
    try:
        with user_errors(types=(ValueError, OSError)):
            run(args)
    except KeyboardInterrupt:
        raise SystemExit(STOPPED) from None
