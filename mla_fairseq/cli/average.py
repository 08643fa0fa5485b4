"""Average the weights of several checkpoints of one training into one checkpoint."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mla_fairseq.averaging import average_checkpoints, last_checkpoints, save_checkpoint
from mla_fairseq.cli.options import Help, run_command
from mla_fairseq.files import check_output

LAST = 5


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-average``."""
    parser = argparse.ArgumentParser(prog="mla-average", description=__doc__, formatter_class=Help)
    parser.add_argument("--inputs", type=Path, nargs="+", required=True, help="checkpoints, or one folder of them")
    parser.add_argument(
        "--last", type=int, metavar="N", help=f"number of newest checkpoints to average, of a folder (default: {LAST})"
    )
    parser.add_argument("--ema", action="store_true", help="take the moving averages of the weights (--store-ema)")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint to write")
    return parser


def run(args: argparse.Namespace) -> None:
    """Average, write and report.

    Raises:
        ValueError: flags or files are wrong.
    """
    if args.last is not None and args.last < 1:
        raise ValueError(f"--last is {args.last}: give at least 1")
    folders = [path for path in args.inputs if path.is_dir()]
    if folders and len(args.inputs) > 1:
        raise ValueError(f"--inputs has a folder among {len(args.inputs)} inputs ({folders[0]}): give it alone")
    if args.last is not None and not folders:
        raise ValueError(f"--last counts the checkpoints of a folder ({args.last}), but --inputs has files: remove it")
    check_output(args.output)
    last = args.last or LAST
    paths = last_checkpoints(folders[0], last) if folders else args.inputs
    if folders and len(paths) < last:
        print(f"{folders[0]} has fewer than {last} checkpoints: {len(paths)}")
    save_checkpoint(average_checkpoints(paths, args.ema), args.output)
    print(f"{args.output}: mean of {', '.join(path.name for path in paths)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-average``."""
    run_command(build_parser(), run, argv)
