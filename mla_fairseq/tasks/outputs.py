"""Check fairseq's own flags for outputs and numbers while they are parsed."""

from __future__ import annotations

from argparse import ArgumentError, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mla_fairseq.errors import user_errors
from mla_fairseq.files import check_folder
from mla_fairseq.tasks.parsed import check_parsed


class CheckedParser(ArgumentParser):
    """A parser of fairseq's, with checks of flags that its commands use before they set up the task."""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> tuple[Namespace, list[str]]:  # type: ignore[override]
        """Parse flags as argparse does.

        Raises:
            UserError: what ``check_parsed`` raises.
        """
        found, rest = super().parse_known_args(*args, **kwargs)
        check_parsed(found)
        return found, rest


def add_checks(parser: ArgumentParser) -> None:
    """Let a parser of fairseq's refuse numbers out of range, and a file where fairseq would make a folder."""
    if type(parser) is ArgumentParser:
        parser.__class__ = CheckedParser  # fairseq parses again by the same object
    flag = "--results-path" if "--results-path" in parser._option_string_actions else "--save-dir"
    if action := parser._option_string_actions.get(flag):
        action.type = _output_folder


@contextmanager
def known_arch() -> Iterator[None]:
    """Report a model of fairseq's text tasks, whose flags are also flags of a speech task, which is added inside.

    Raises:
        UserError: there is such a model.
    """
    with user_errors("--arch is not a model of this task, use another: ", (ArgumentError,)):
        yield


def _output_folder(name: str) -> str:
    try:
        check_folder(Path(name))
    except ValueError as error:  # argparse would hide its message
        raise ArgumentTypeError(str(error)) from error
    return name
