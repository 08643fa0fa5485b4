"""What the command lines of the data scripts share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults where there are any, and the description as it was written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add `--data`, whose default is the environment's DATA."""
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("DATA"), help="folder that holds the pairs; default: $DATA"
    )


def data_root(given: Path | None) -> Path:
    """The folder of the corpora. Raises ValueError if it was neither given nor set, or is not there."""
    if given is None:
        raise ValueError("where are the corpora? pass --data DIR or set DATA")
    if not given.is_dir():
        raise ValueError(f"{given} is no folder: correct --data or DATA")
    return given
