"""Subword pieces to whole words: a word is whole when the next one begins, or the sentence ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

SPACE = "\u2581"
"""SentencePiece's sign for a space, with which a piece begins a word."""

BEGIN = "<s>"
"""fairseq's sign for the beginning, which a model may say and nobody should read."""


def begins_word(piece: str) -> bool:
    """Whether a piece ends the word before it."""
    return piece.startswith(SPACE)


def join(pieces: Iterable[str]) -> str:
    """The text of pieces, as fairseq prints it."""
    return "".join(piece for piece in pieces if piece != BEGIN).replace(SPACE, " ").strip()


def whole(pieces: Sequence[str]) -> int:
    """How many of these pieces belong to words that are whole: all before the last one that begins a word."""
    return next((i for i in range(len(pieces) - 1, -1, -1) if begins_word(pieces[i])), 0)


def words(pieces: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Each word of a finished sentence, and the place of the piece with which it became whole.

    That place is the first piece of the next word, or ``len(pieces)``, the end of the sentence.
    """
    start = 0
    for i in range(1, len(pieces) + 1):
        if i == len(pieces) or begins_word(pieces[i]):
            if text := join(pieces[start:i]):
                yield text, i
            start = i
