"""Read the folder of an exported model. Whatever is not as it was written gives one clear error; nothing runs code."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mla_fairseq.edge.runtime.names import CONFIG, FORMAT, TOKENS
from mla_fairseq.files import as_path, check_file, file_name, read_json, read_text

COPY = "copy the folder again, or export the model again"

Value = TypeVar("Value")


@dataclass(frozen=True)
class Folder:
    """A checked folder.

    Attributes:
        path: the folder.
        config: the values of config.json.
    """

    path: Path
    config: dict[str, Any]

    def get(self, name: str, kind: type[Value], lowest: float | None = None) -> Value:
        """Return a value of config.json; an int may stand for a float.

        Raises:
            ValueError: it is missing, of another type or below ``lowest``.
        """
        value = self.config.get(name)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or (lowest is not None and not value >= lowest):  # type: ignore[operator]
            wanted = kind.__name__ if lowest is None else f"{kind.__name__} of at least {lowest}"
            article = "an" if kind is int else "a"
            raise ValueError(f"{self.path / CONFIG}: {name} is not {article} {wanted} ({value!r}): {COPY}")
        return value

    def graph(self, part: str, precision: str | None = None) -> Path:
        """Return the file of a graph.

        Args:
            part: such as ``encoder``.
            precision: ``int8`` or ``float32``; ``None``: int8 where the folder has it.

        Raises:
            ValueError: the folder does not have it.
        """
        names = {"int8": f"{part}.int8.onnx", "float32": f"{part}.onnx"}
        wanted = list(names.values()) if precision is None else [names[precision]]
        for name in wanted:
            if name in self.config["files"]:
                return self.path / name
        raise ValueError(f"{self.path} has no {' or '.join(wanted)}: name another precision, or export the model again")

    def tokens(self) -> list[str]:
        """Return the symbols of the dictionary, in the order of their numbers.

        Raises:
            ValueError: a line of tokens.txt is not ``symbol number``, or the numbers are not 0, 1, 2 and so on.
        """
        path = self.path / TOKENS
        lines = read_text(path, newline="\n").removesuffix("\n").split("\n")
        pairs = [line.rpartition(" ") for line in lines]
        for number, (symbol, _, index) in enumerate(pairs):
            if not symbol or index != str(number):
                raise ValueError(f"{path}, line {number + 1}, is not a symbol and the number {number}: {COPY}")
        return [symbol for symbol, _, _ in pairs]


def load_folder(path: Path | str, kind: str) -> Folder:
    """Return a folder whose files are those that ``mla-export`` wrote.

    Args:
        path: the folder.
        kind: ``type`` of the model, such as ``speech-to-text``.

    Raises:
        ValueError: it is no such folder, of another type or format, or a file is missing, cut short or changed.
    """
    path = as_path(path, "the folder of the model")
    check_file(path / CONFIG, "give the folder that mla-export wrote")
    config = read_json(path / CONFIG)
    if not isinstance(config, dict) or "format" not in config or not isinstance(config.get("files"), dict):
        raise ValueError(f"{path / CONFIG} is not of an exported model: give the folder that mla-export wrote")
    if config["format"] != FORMAT:
        raise ValueError(
            f"{path / CONFIG} has the format {config['format']!r}, but this version reads {FORMAT}: export the model "
            "again, or install the version that exported it"
        )
    if config.get("type") != kind:
        raise ValueError(f"{path} is a model of type {config.get('type')!r}, but {kind!r} is needed: give another one")
    for name, recorded in config["files"].items():
        _check_content(path / file_name(name, f"a file in {path / CONFIG}"), recorded)
    return Folder(path, config)


def _check_content(path: Path, recorded: object) -> None:
    """Check size and SHA-256 of a file.

    Raises:
        ValueError: the file is missing or differs, or nothing usable is recorded.
    """
    if not isinstance(recorded, dict):
        raise ValueError(f"{path.parent / CONFIG} has no size and SHA-256 of {path.name}: {COPY}")
    size = os.stat(check_file(path, COPY)).st_size
    if size != recorded.get("bytes"):
        raise ValueError(f"{path} has {size} bytes, but {recorded.get('bytes')} were written: {COPY}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != recorded.get("sha256"):
        raise ValueError(f"{path} is not the file that was written (its SHA-256 is {found[:12]}...): {COPY}")
