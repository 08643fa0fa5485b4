"""Transcripts as characters: the form of a text that CTC learns and word error rates compare."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

SPACE = "\u2581"
"""A space in a vocabulary, as in SentencePiece."""

FIRST = 4
"""The index of the first symbol: fairseq puts <s>, <pad>, </s> and <unk> in front of every dictionary."""

BLANK, UNKNOWN = 0, 3
"""The indices of CTC's blank, which is fairseq's <s>, and of <unk>."""

_OUTER = re.compile(r"(?<!\w)'+|'+(?!\w)")


def normalise(text: str) -> str:
    """Return a text in lower case, without punctuation except apostrophes inside words, with single spaces."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower()).replace("\u2019", "'")
    kept = "".join(sign if sign == "'" or unicodedata.category(sign)[0] in "LMN" else " " for sign in plain)
    return " ".join(_OUTER.sub(" ", kept).split())


@dataclass(frozen=True)
class Alphabet:
    """The symbols of transcripts, one character each, in the order of their indices; ``SPACE`` is one of them."""

    symbols: str

    def __len__(self) -> int:
        return FIRST + len(self.symbols)

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {symbol: index for index, symbol in enumerate(self.symbols, start=FIRST)}

    def encode(self, text: str) -> list[int]:
        """Return the indices of the characters of a text; one that the alphabet lacks is ``UNKNOWN``."""
        return [self._indices.get(symbol, UNKNOWN) for symbol in normalise(text).replace(" ", SPACE)]

    def decode(self, indices: Iterable[int]) -> str:
        """Return the text of indices, without blanks and special symbols; an unknown character is a question mark."""
        shown = ("?" if index == UNKNOWN else self.symbols[index - FIRST] for index in indices if index >= UNKNOWN)
        return " ".join("".join(shown).replace(SPACE, " ").split())
