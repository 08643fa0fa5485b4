"""The languages of a model, where its data name them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path


def manifest_languages(data: Path) -> tuple[set[str], set[str]]:
    """Return the source and the target languages of the manifests in a data folder; each has one pair.

    A folder without manifests, or with manifests of another tool, may name none.
    """
    first_rows = [_first_row(path) for path in data.glob("*.tsv")]
    source, target = ({row.get(key, "") for row in first_rows} - {""} for key in ("src_lang", "tgt_lang"))
    return source, target


def _first_row(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", errors="replace") as file:  # a manifest can be large
        header, row = (file.readline().rstrip("\n").split("\t") for _ in range(2))
    return dict(zip(header, row, strict=False))


def check_language(kind: str, language: object, known: Collection[str]) -> None:
    """Check that a model has a language; if ``known`` is empty, nothing names its languages, and every one passes.

    Args:
        kind: ``source`` or ``target``, for the message.
        language: the language, such as ``de``.
        known: the languages of the model.

    Raises:
        ValueError: it is another language.
    """
    if known and language not in known:
        raise ValueError(f"{language!r} is no {kind} language of this model: use {' or '.join(sorted(known))}")
