#!/usr/bin/env python3
"""Write the reference of all commands and flags from their parsers."""

from __future__ import annotations

import argparse
import importlib
import re
import textwrap
import tomllib
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path

from mla_fairseq import agents
from mla_fairseq.agents import StreamingAgent
from mla_fairseq.files import write_text
from mla_fairseq.models.conformer import add_conformer_args
from mla_fairseq.models.length_options import add_length_args
from mla_fairseq.models.options import add_attention_args
from mla_fairseq.models.simul import add_chunk_args, add_simul_args

ROOT = Path(__file__).resolve().parents[1]
INTRODUCTION = """# Commands

The console scripts of the package, and the flags that it adds to fairseq and SimulEval.
"""
MODELS = {
    "Attention": add_attention_args,
    "Chunked encoder": add_chunk_args,
    "Conformer encoder": add_conformer_args,
    "Lengths": add_length_args,
    "Simultaneous models": add_simul_args,
}
ELSEWHERE = {"workers": "the number of cores", "data": None}
"""Defaults that differ from machine to machine, and what to write in their place."""

MARKS = re.compile(r"[*<|\[\]]|(?<!\w)_|_(?!\w)")
"""What Markdown would take for marks: an underscore inside a word is none."""

END = """
Made by `python scripts/describe_commands.py`; a test compares it with the parsers.
"""


def document() -> str:
    """Return the whole document."""
    lines = [INTRODUCTION, *_console_scripts()]
    lines += ["## `fairseq-train`: flags of the models", ""]
    for title, add in MODELS.items():
        lines += [f"### {title}", "", *_table(_parser(add)), ""]
    lines += ["## `simuleval`: flags of the agents", "", "Every agent has:", ""]
    lines += _table(_parser(StreamingAgent.add_args))
    for name in agents.__all__:
        lines += _agent(name)
    return "\n".join(lines).rstrip() + "\n" + END


def _console_scripts() -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, function in sorted(project["scripts"].items()):
        parser = importlib.import_module(function.partition(":")[0]).build_parser()
        usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
        usage = textwrap.fill(usage, 100, subsequent_indent="    ", break_on_hyphens=False)  # on any terminal
        yield from (f"## `{name}`", "", _plain(parser.description or ""), "", "```text", usage, "```", "")
        yield from (*_table(parser), "")


def _agent(name: str) -> list[str]:
    """Return the flags that an agent has beside those of every agent."""
    every = {action.dest for action in _parser(StreamingAgent.add_args)._actions}
    parser = _parser(getattr(agents, name).add_args)
    parser._actions = [action for action in parser._actions if action.dest not in every]
    return ["", f"### `{name}`", "", *_table(parser)] if parser._actions else []


def _parser(add: Callable[[ArgumentParser], None]) -> ArgumentParser:
    add(parser := ArgumentParser(add_help=False))
    return parser


def _table(parser: ArgumentParser) -> Iterator[str]:
    """Yield a table with a row for each flag."""
    yield from ("| flag | meaning |", "|---|---|")
    formatter = parser._get_formatter()
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        action.default = ELSEWHERE.get(action.dest, action.default)
        text = formatter._expand_help(action) if action.help else ""
        yield f"| `{_flag(action, formatter)}` | {_plain(text)} |"


def _flag(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    """Return a flag with its value, or the name of a positional argument."""
    if not action.option_strings:
        return formatter._metavar_formatter(action, action.dest)(1)[0]
    switch = action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction)
    value = "" if switch else formatter._format_args(action, action.dest.upper())
    return f"{', '.join(action.option_strings)} {value}".strip()


def _plain(text: str) -> str:
    """Return a text without what Markdown would take for marks; names in double backticks stay code."""
    parts = re.split(r"(``[^`]+``)", " ".join(text.split()) if "\n\n" not in text else text.strip())
    return "".join(part if place % 2 else MARKS.sub(r"\\\g<0>", part) for place, part in enumerate(parts))


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/reference/commands.md"), help="file to write")
    write_text(parser.parse_args().output, document())


if __name__ == "__main__":
    main()
