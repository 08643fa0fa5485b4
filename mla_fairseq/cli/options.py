"""What console scripts share: how they run and report mistakes, their help, and common options."""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mla_fairseq.errors import user_errors
from mla_fairseq.streaming.detectors import DETECTOR_NAMES

if TYPE_CHECKING:
    from mla_fairseq.data.corpus import Corpus

STOPPED = "stopped: run the same command again to continue"
ENDED = "stopped: the same command would start from the beginning"

# fairseq always sets pin_memory, and uses hydra as its version 1.0 wanted it; some messages begin with a line break
FOREIGN_WARNINGS = (
    "'pin_memory' argument is set",
    r"In 'config': ",
    r"hydra\.experimental",
    r"\s*The strict flag in the compose API",
    r"\s*The version_base parameter is not specified",
    r"\s*'config' is validated against ConfigStore schema",
)


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None,
    level: int = logging.WARNING,
    continues: bool = False,
) -> None:
    """Parse ``argv`` (``None``: the command line) and run a command, whose mistakes are reported in one line each.

    Messages of ``level`` and above are printed. ``continues``: the same command continues one that was stopped.
    """
    args = parser.parse_args(argv)
    logging.basicConfig(level=level, format="%(message)s", force=True)  # fairseq has configured its own
    for message in FOREIGN_WARNINGS:
        warnings.filterwarnings("ignore", message, UserWarning)
    try:
        with user_errors(types=(ValueError, OSError)):
            run(args)
    except KeyboardInterrupt:
        raise SystemExit(STOPPED if continues else ENDED) from None


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show the default of an option that has one, and keep the line breaks of the description."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # a switch, an empty text and an empty list have no default worth reading; 0 has one, though it equals False
        empty = action.default is None or action.default is False or action.default in ("", [])
        return action.help if empty else super()._get_help_string(action)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--data``, whose default ``data_root`` knows, and ``--corpus-format``."""
    from mla_fairseq.data.layouts import LAYOUTS  # only for the commands that read corpora

    parser.add_argument("--data", type=Path, help="folder of the language pairs (default: $DATA)")
    help_ = "layout of the corpus (default: the one whose files exist)"
    parser.add_argument("--corpus-format", choices=list(LAYOUTS), help=help_)


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


def open_pair(args: argparse.Namespace, pair: str) -> Corpus:
    """Return the corpus of a language pair, from the flags of ``add_data``.

    Raises:
        ValueError: there is no corpus of the pair.
    """
    from mla_fairseq.data.layouts import open_corpus

    return open_corpus(data_root(args.data) / pair, args.corpus_format)


def add_detector(parser: argparse.ArgumentParser) -> None:
    """Add ``--detector``, for recordings of any length."""
    help_ = "what finds speech (default: boundary where the model has it, or energy)"
    parser.add_argument("--detector", choices=DETECTOR_NAMES, help=help_)


def add_user_dir(parser: argparse.ArgumentParser) -> None:
    """Add ``--user-dir``."""
    help_ = "fairseq plugin folder, such as a package that registers your mechanisms (default: mla_fairseq)"
    parser.add_argument("--user-dir", metavar="DIR", help=help_)


def import_user_dir(folder: str | None) -> None:
    """Import the folder of ``--user-dir``, if one is given, as fairseq does.

    Raises:
        ValueError: it does not exist.
    """
    from fairseq import utils  # only for the commands that load models

    try:
        utils.import_user_module(argparse.Namespace(user_dir=folder))
    except FileNotFoundError as error:
        raise ValueError(f"--user-dir is {error}, which does not exist: name the folder of a package") from error


def add_quality(parser: argparse.ArgumentParser) -> None:
    """Add the options of BLEU and chrF."""
    from sacrebleu.metrics import BLEU  # only for the commands that score

    def usable(name: str) -> str:
        if name in BLEU.TOKENIZERS:
            try:
                BLEU(tokenize=name)
            except (RuntimeError, ImportError) as error:  # its package is missing
                reason = " ".join(str(error).split())
                raise argparse.ArgumentTypeError(f"{name} cannot be used ({reason}): name another") from error
        return name

    help_ = "sacrebleu's tokeniser for BLEU"
    parser.add_argument("--tokenize", type=usable, default="13a", choices=BLEU.TOKENIZERS, metavar="NAME", help=help_)
    parser.add_argument("--lowercase", action="store_true", help="BLEU and chrF without case")


def printable(text: str) -> str:
    """Return a text that tables and pictures can show, as the type of a flag.

    Raises:
        ArgumentTypeError: it has a line break, a tab or another control character.
    """
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} has a line break or control character: remove it")
    return text


def printable_path(text: str) -> Path:
    """Return a path whose name tables and pictures can show, as ``printable`` does."""
    return Path(printable(text))


def at_least(lowest: int) -> Callable[[str], int]:
    """Return the type of a flag whose value is a whole number of at least ``lowest``."""

    def number(text: str) -> int:
        value = int(text) if text.lstrip("+-").isdecimal() else lowest - 1
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {lowest}")
        return value

    return number


def add_picture(parser: argparse.ArgumentParser) -> None:
    """Add the options of a table of points and its picture."""
    parser.add_argument("--output", type=printable_path, required=True, help="folder for logs, table and pictures")
    parser.add_argument(
        "--system", type=printable, help="name in table and picture (default: name of the output folder)"
    )
    parser.add_argument("--title", default="", help="title above the picture")
