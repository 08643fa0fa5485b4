"""RESULTS.md from records: one JSON file for each run, and a template with the prose.

FOLDER/results/template.md holds blocks between fences; FOLDER/results/TABLE/*.json are the rows, in the order of their
names::

    ```table TABLE            a row for each record; "table TABLE points" has one for each of its points
    heading | {key:.1f}       a column: a format string over the record's keys; a missing value is a dash
    ```
    ```facts TABLE            what the rows share: signatures, machine, seed
    ```
    ```commands TABLE         the command of each row
    ```
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mla_fairseq.files import read_text, write_json

_BLOCK = re.compile(r"^```(table|facts|commands) (.+)\n((?:.*\n)*?)```$", re.MULTILINE)
_COMMIT = re.compile(r"[0-9a-f]{7,40}(\.\.[0-9a-f]{7,40})?")
_NUMBER = re.compile(r"-|-?[\d,.]+(%| M)?")
_NOTE = "<!-- Written by scripts/write_results.py: edit results/template.md, and add runs with --add. -->\n\n"

Record = dict[str, Any]


def render(folder: Path) -> str:
    """Return the text of FOLDER/RESULTS.md.

    Raises:
        ValueError: a table without records, or a record that is not published.
    """
    blocks = {"table": _table, "facts": _facts, "commands": _commands}

    def block(match: re.Match[str]) -> str:
        name, *options = match[2].split()
        return blocks[match[1]](read_records(folder / "results" / name), match[3].splitlines(), options)

    return _NOTE + _BLOCK.sub(block, read_text(folder / "results" / "template.md"))


def read_records(folder: Path) -> list[Record]:
    """Return the records of a table.

    Raises:
        ValueError: there is none, or one that must not be published.
    """
    records = [check(path, _load(path)) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise ValueError(f"there is no record in {folder}: add a run with --add")
    return records


def _load(path: Path) -> Record:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): run the recipe again, or delete it") from error


def check(path: Path, record: Record) -> Record:
    """Return a record that may be published: its code can be checked out, its run repeated.

    Raises:
        ValueError: a commit with uncommitted changes, or none, no command or no name.
    """
    commit = record.get("commit")
    if not _COMMIT.fullmatch(str(commit)):
        raise ValueError(f"{path} is of commit {commit}, which cannot be checked out: run it again at a clean commit")
    for key in ("command", "name"):
        if not record.get(key):
            raise ValueError(f"{path} has no {key}: it must be possible to run it again")
    return record


def add(folder: Path, table: str, run: Path) -> Path:
    """Copy a run's ``result.json`` to the records of a table, in place of one of the same name; return its path.

    Raises:
        ValueError: it must not be published, or the template has no such table.
    """
    path = run / "result.json"
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run the recipe to its end first")
    tables = {match[2].split()[0] for match in _BLOCK.finditer(read_text(folder / "results" / "template.md"))}
    if table not in tables:
        raise ValueError(f"--table {table} is not in {folder}'s template: use one of {', '.join(sorted(tables))}")
    record, there = check(path, _load(path)), folder / "results" / table
    same = sorted(there.glob(f"[0-9][0-9]-{record['name']}.json"))
    target = same[0] if same else there / f"{len(list(there.glob('*.json'))) + 1:02d}-{record['name']}.json"
    write_json(target, record)
    return target


class _Cells(string.Formatter):
    """Format strings whose missing values are dashes."""

    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:
        return kwargs.get(key)

    def format_field(self, value: Any, format_spec: str) -> str:
        return "-" if value is None else super().format_field(value, format_spec)


def _table(records: list[Record], columns: list[str], options: list[str]) -> str:
    if options == ["points"]:
        records = [{**record, **point} for record in records for point in record["points"]]
    heads, formats = zip(*(column.split(" | ", 1) for column in columns), strict=True)
    rows = [[_Cells().format(cell, **_derived(record)) for cell in formats] for record in records]
    right = [all(_NUMBER.fullmatch(row[place]) for row in rows) for place in range(len(heads))]
    lines = [heads, ["---:" if one else "---" for one in right], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _derived(record: Record) -> Record:
    """Add what a column may show besides the record's own keys."""
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
    notes = [f"{name}: `{one}`" for name in ("BLEU", "chrF") for one in _each(records, f"{name.lower()}_signature")]
    for machine in _each(records, "machine"):
        device = "" if machine["device"] == "cpu" else f"{machine['device']}; "
        cores = f"{machine['threads']} of {machine['cores']} cores"
        notes.append(f"machine: {device}{machine['cpu']}, {cores}; torch {machine['torch']}")
    notes.append(f"seed: {', '.join(map(str, _each(records, 'seed')))}")
    return "\n".join(f"- {note}" for note in notes)


def _commands(records: list[Record], *_: Any) -> str:
    lines = dict.fromkeys(line for record in records for line in record["command"].splitlines())
    return "\n".join(["```sh", *lines, "```"])


def _each(records: Iterable[Record], key: str) -> list[Any]:
    """Return the different values of a key, in the order in which they first occur."""
    values = [record[key] for record in records if record.get(key) is not None]
    return [value for place, value in enumerate(values) if value not in values[:place]]
