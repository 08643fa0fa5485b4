"""Share help formatting and the ``--data`` option between the data commands."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show a default where an option has one, and keep the line breaks of the description."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``; ``data_root`` knows its default."""
    parser.add_argument("--data", type=Path, help="folder of the language pairs (default: $DATA)")


def data_root(given: Path | None) -> Path:
    """Return the folder of the corpora: ``given``, or else the environment variable ``DATA``.

    Raises:
        ValueError: neither ``--data`` nor ``DATA`` is set, or the folder does not exist.
    """
    name = given or os.environ.get("DATA")
    if not name:
        raise ValueError("no folder of corpora: set --data DIR or the environment variable DATA")
    if not (folder := Path(name)).is_dir():
        raise ValueError(f"{folder} is not a folder: correct --data or DATA")
    return folder
