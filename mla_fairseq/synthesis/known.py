"""Check that a model knows the symbols of a text. Needs no package, as models without PyTorch need it."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence

log = logging.getLogger(__name__)


def check_known(texts: Sequence[str], lines: Sequence[Sequence[str]], known: Container[str], word_end: str) -> None:
    """Warn of symbols that a model does not know.

    Args:
        texts: the texts, for the message.
        lines: the symbols of each text.
        known: the symbols of the model.
        word_end: the symbol between words, which alone says nothing.

    Raises:
        ValueError: a text has no known symbol.
    """
    missing: set[str] = set()
    for text, line in zip(texts, lines, strict=True):
        unknown = {symbol for symbol in line if symbol not in known}
        if unknown >= set(line) - {word_end}:
            raise ValueError(
                f"the model knows no symbol of the text ({text!r}): use text like that of the training set"
            )
        missing |= unknown
    if missing:
        log.warning("symbols that the training set does not contain: %s", " ".join(sorted(missing)))
