"""Check fairseq's own flags for outputs."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

from mla_fairseq.files import check_folder


def add_output_check(parser: ArgumentParser) -> None:
    """Let a parser of fairseq's refuse a file where fairseq would make a folder, and end with a traceback."""
    flag = "--results-path" if "--results-path" in parser._option_string_actions else "--save-dir"
    if action := parser._option_string_actions.get(flag):
        action.type = _output_folder


def _output_folder(name: str) -> str:
    try:
        check_folder(Path(name))
    except ValueError as error:  # argparse would hide its message
        raise ArgumentTypeError(str(error)) from error
    return name
