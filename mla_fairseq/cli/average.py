"""Average the weights of several checkpoints of one training into one checkpoint."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mla_fairseq.averaging import average_checkpoints, last_checkpoints, save_checkpoint
from mla_fairseq.cli.options import Help, run_command
from mla_fairseq.files import check_output


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-average``."""
    parser = argparse.ArgumentParser(prog="mla-average", description=__doc__, formatter_class=Help)
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, help="checkpoints, or one folder of them")
    parser.add_argument("--last", type=int, default=5, help="number of newest checkpoints to average, of a folder")
    parser.add_argument("--ema", action="store_true", help="take the moving averages of the weights (--store-ema)")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint to write")
    return parser


def run(args: argparse.Namespace) -> None:
    """Average, write and report.

    Raises:
        ValueError: flags or files are wrong.
    """
    if args.last < 1:
        raise ValueError(f"--last is {args.last}: give at least 1")
    folders = [path for path in args.inputs if path.is_dir()]
    if folders and len(args.inputs) > 1:
        raise ValueError(f"--inputs has a folder among {len(args.inputs)} inputs ({folders[0]}): give it alone")
    check_output(args.output)
    paths = last_checkpoints(args.inputs[0], args.last) if args.inputs[0].is_dir() else args.inputs
    save_checkpoint(average_checkpoints(paths, args.ema), args.output)
    print(f"{args.output}: mean of {', '.join(path.name for path in paths)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-average``."""
    run_command(build_parser(), run, argv)
