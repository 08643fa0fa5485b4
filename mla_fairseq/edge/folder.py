"""Write the folder of an exported model: whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mla_fairseq.edge.page import PAGE
from mla_fairseq.edge.runtime.names import CONFIG, FORMAT
from mla_fairseq.files import check_folder, make_folder, naming, read_json, write_json, write_text


@contextmanager
def writing(output: Path) -> Iterator[Path]:
    """Yield a new folder; it replaces ``output`` when the block ends without an error.

    Raises:
        ValueError: see ``check_replaceable``.
        OSError: a file cannot be written.
    """
    check_replaceable(output)
    part, old = (output.with_name(f"{output.name}.{suffix}") for suffix in ("part", "old"))
    make_folder(output.parent)
    try:
        with naming(output):
            _remove(part)  # of a killed run
            part.mkdir()
            yield part
            _remove(old)
            if output.exists():
                os.replace(output, old)
            os.replace(part, output)
    finally:
        _remove(part)
        _remove(old)


def check_replaceable(output: Path) -> None:
    """Check that a folder can be written: it is new, empty, or an exported model.

    Raises:
        ValueError: it is something else.
    """
    if output.name in ("", ".."):
        raise ValueError(f"the output {output} has no name of its own: name a new folder")
    if output.is_symlink():
        raise ValueError(f"the output {output} is a link: name a new folder, or one to replace")
    check_folder(output)
    if output.is_dir() and any(output.iterdir()) and not _exported(output):
        raise ValueError(f"the output {output} has files that are not of an exported model: name a new folder")


def _exported(folder: Path) -> bool:
    """Return whether all files of a folder are those of an exported model."""
    try:
        files = read_json(folder / CONFIG)["files"]
        return {path.name for path in folder.iterdir()} <= {CONFIG, *files, *PAGE}
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def write_tokens(path: Path, symbols: Iterable[str]) -> None:
    """Write a line ``piece id`` for each symbol of a dictionary, as icefall does."""
    write_text(path, "".join(f"{symbol} {index}\n" for index, symbol in enumerate(symbols)))


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json``: what is given, and the size and SHA-256 of every file that is in the folder."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(folder.iterdir())
    }
    write_json(folder / CONFIG, {"format": FORMAT, **config, "files": files})
