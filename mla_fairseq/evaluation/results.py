"""Write RESULTS.md from records, one JSON file for each run, and a template with the text.

The rows of a table are FOLDER/results/TABLE/*.json, in the order of their names. FOLDER/results/template.md contains
fenced blocks, which are replaced::

    ```table TABLE            a row for each record; "table TABLE points" has a row for each point of each record, and
                              "table TABLE sets" one for each test set, where there are several
    heading | {key:.1f}       a column: a format string over the record's keys; a missing value is a dash
    ```
    ```facts TABLE            signatures, machine and seed of the records
    ```
    ```commands TABLE         the command of each record
    ```
"""

from __future__ import annotations

import glob
import re
import shlex
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mla_fairseq.files import check_file, file_name, read_text, write_json
from mla_fairseq.parsing import parse_json

_BLOCK = re.compile(r"^```(table|facts|commands) (.+)\n((?:.*\n)*?)```$", re.MULTILINE)
_COMMIT = re.compile(r"[0-9a-f]{7,40}(\.\.[0-9a-f]{7,40})?")
_NUMBER = re.compile(r"-|[-+]?[\d,.]+(%| M)?")
_NOTE = "<!-- Written by scripts/write_results.py: edit results/template.md, and add runs with --add. -->\n\n"

Record = dict[str, Any]


def render(folder: Path | str) -> str:
    """Return the text of FOLDER/RESULTS.md.

    Raises:
        ValueError: a table without records, or a record that must not be published.
    """
    folder = Path(folder)
    blocks = {"table": _table, "facts": _facts, "commands": _commands}

    def block(match: re.Match[str]) -> str:
        name, *options = match[2].split()
        return blocks[match[1]](read_records(folder / "results" / name), match[3].splitlines(), options)

    return _NOTE + _BLOCK.sub(block, read_text(folder / "results" / "template.md"))


def read_records(folder: Path | str) -> list[Record]:
    """Return the records of a table.

    Raises:
        ValueError: no record, or one that must not be published.
    """
    records = [check(path, _load(path)) for path in sorted(Path(folder).glob("*.json"))]
    if not records:
        raise ValueError(f"no record in {folder}: add a run with --add")
    return records


def _load(path: Path) -> Record:
    """Return the record in a file."""
    text = read_text(path)
    try:
        record = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): run the recipe again, or delete the file") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is not a record ({repr(record)[:40]}): run the recipe again, or delete the file")
    return record


def check(path: Path, record: Record) -> Record:
    """Return the record if it may be published: its code can be checked out and its run repeated.

    Raises:
        ValueError: no commit, one with uncommitted changes, no command or no name, or a path of one machine.
    """
    commit = record.get("commit")
    if not _COMMIT.fullmatch(str(commit)):
        raise ValueError(
            f"{path} has a commit that cannot be checked out ({commit}): run the recipe again at a clean commit"
        )
    for key in ("command", "name"):
        if not record.get(key):
            raise ValueError(f"{path} has no {key}, so that the run cannot be repeated: run the recipe again")
    words = [word for command in record.get("commands", {}).values() for word in shlex.split(command)]
    if absolute := next((word for word in words if word.startswith("/")), None):
        raise ValueError(f"{path} has a path of one machine ({absolute}): add the run from its own folder")
    return record


def add(folder: Path | str, table: str, run: Path | str) -> Path:
    """Copy a run's ``result.json`` to the records of a table, replacing one of the same name; return the copy's path.

    The folder of all runs (``mla-recipe --out``) is called ``runs`` in the commands of the copy.

    Raises:
        ValueError: the record must not be published, or the template has no such table.
    """
    folder, path = Path(folder), Path(run) / "result.json"
    check_file(path, "complete the recipe first")
    tables = {match[2].split()[0] for match in _BLOCK.finditer(read_text(folder / "results" / "template.md"))}
    if table not in tables:
        raise ValueError(
            f"--table is not in the template of {folder} ({table}): choose one of {', '.join(sorted(tables))}"
        )
    record, records = _load(path), folder / "results" / table
    runs = str(Path(run).absolute().parent)
    record["commands"] = {stage: text.replace(runs, "runs") for stage, text in record.get("commands", {}).items()}
    check(path, record)
    name = file_name(record["name"], f"the name in {path}")
    same = sorted(records.glob(f"[0-9][0-9]-{glob.escape(name)}.json"))
    target = same[0] if same else records / f"{len(list(records.glob('*.json'))) + 1:02d}-{name}.json"
    write_json(target, record)
    return target


class _Cells(string.Formatter):
    """A formatter that shows missing values as dashes."""

    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        return kwargs.get(key)

    def format_field(self, value: Any, format_spec: str) -> str:
        return "-" if value is None else super().format_field(value, format_spec)


def _table(records: list[Record], columns: list[str], options: list[str]) -> str:
    """Return a markdown table; columns of numbers are aligned to the right."""
    for key in options:  # points, sets or long_recordings; a run need not have measured them
        records = [{**record, **row} for record in records for row in record.get(key, ())]
        if not records:
            raise ValueError(f"no record has {key}: correct the template, or add a run that has it")
    heads, formats = zip(*(column.split(" | ", 1) for column in columns), strict=True)
    rows = [[_Cells().format(cell, **_derived(record)) for cell in formats] for record in records]
    right = [all(_NUMBER.fullmatch(row[place]) for row in rows) for place in range(len(heads))]
    lines = [heads, ["---:" if one else "---" for one in right], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _derived(record: Record) -> Record:
    """Return the record with values that columns may show besides: ``sites``, ``size`` and ``share``."""
    found = dict(record)
    if sites := record.get("attention"):
        every = len(set(sites.values())) == 1
        found["sites"] = f"{sites['cross']} everywhere" if every else " / ".join(sites.values())
    if record.get("parameters"):
        found["size"] = f"{record['parameters'] / 1e6:.2f} M"
    if record.get("offline_bleu"):
        found["share"] = record["bleu"] / record["offline_bleu"]
    return found


def _facts(records: list[Record], *_: Any) -> str:
    """Return a list of the signatures, machines and seeds of the records."""
    notes = [f"{name}: `{one}`" for name in ("BLEU", "chrF") for one in _each(records, f"{name.lower()}_signature")]
    for machine in _each(records, "machine"):
        device = "" if machine["device"] == "cpu" else f"{machine['device']}; "
        cores = f"{machine['threads']} of {machine['cores']} cores"
        notes.append(f"machine: {device}{machine['cpu']}, {cores}; torch {machine['torch']}")
    notes.append(f"seed: {', '.join(map(str, _each(records, 'seed')))}")
    return "\n".join(f"- {note}" for note in notes)


def _commands(records: list[Record], *_: Any) -> str:
    """Return a shell block of the commands; a line that several records share occurs once."""
    lines = dict.fromkeys(line for record in records for line in record["command"].splitlines())
    return "\n".join(["```sh", *lines, "```"])


def _each(records: Iterable[Record], key: str) -> list[Any]:
    """Return the distinct values of a key, in the order of first occurrence."""
    values = [record[key] for record in records if record.get(key) is not None]
    return [value for place, value in enumerate(values) if value not in values[:place]]
