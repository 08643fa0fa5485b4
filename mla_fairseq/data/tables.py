"""Read the tables of corpora: tab-separated with a header, or one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mla_fairseq.data.corpus import one_line, read_part
from mla_fairseq.parsing import parse_json


def read_table(path: Path, needed: Sequence[str], escaped: bool = False) -> list[tuple[int, dict[str, str]]]:
    """Return the line number and the cells of each row; quotes are characters like others.

    Args:
        path: the file; ``.jsonl`` is read as JSON, everything else as tab-separated.
        needed: columns that every row has.
        escaped: a backslash makes the next character an ordinary one, as in the tables of Common Voice.

    Raises:
        ValueError: the file is missing or empty, lacks a column, or has a row of another form.
    """
    text = read_part(path)
    rows = list(_json_rows(path, text) if path.suffix == ".jsonl" else _tsv_rows(path, text, escaped))
    if not rows:
        raise ValueError(f"{path} has no row: copy it again, or remove it")
    for number, row in rows:
        if missing := [name for name in needed if name not in row]:
            found = ", ".join(row)
            raise ValueError(f"{path}:{number} lacks {missing[0]} (it has {found}): add it")
    return rows


def _tsv_rows(path: Path, text: str, escaped: bool) -> Iterator[tuple[int, dict[str, str]]]:
    header, *lines = (line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))
    columns = header.split("\t")
    for number, line in enumerate(lines, start=2):
        cells = (_unescape(line) if escaped else line).split("\t")
        if len(cells) != len(columns):
            raise ValueError(f"{path}:{number} has {len(cells)} of {len(columns)} columns: correct the line")
        yield number, dict(zip(columns, map(one_line, cells), strict=True))


def _unescape(line: str) -> str:
    """Return a line without the backslashes in front of other characters; an escaped tab becomes a space."""
    parts = line.replace("\\\t", " ").split("\\\\")  # two backslashes are one character
    return "\\".join(part.replace("\\", "") for part in parts)


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise ValueError(f"{path}:{number} is not valid JSON ({error}): correct the line") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}:{number} is no JSON object ({line.strip()[:80]}): write one per line")
        yield number, {name: one_line(_cell(value, name, f"{path}:{number}")) for name, value in row.items()}


def _cell(value: object, name: str, place: str) -> str:
    """Return a value of a JSON object as a text; null is an empty one."""
    if isinstance(value, dict | list):
        raise ValueError(f"{place}: {name} is no text or number ({value!r}): correct it")
    return "" if value is None else str(value)
