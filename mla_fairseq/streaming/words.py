"""Join subword pieces to whole words: a word is whole once the next one begins or the sentence ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mla_fairseq.models.target_language import is_tag

SPACE = "\u2581"
"""SentencePiece's symbol for a space; a piece that starts with it begins a word."""

BEGIN = "<s>"
"""fairseq's symbol for the beginning of a sentence; a model may emit it, and ``join`` drops it."""


def begins_word(piece: str) -> bool:
    """Return whether ``piece`` begins a word, and so ends the word before it."""
    return piece.startswith(SPACE)


def join(pieces: Iterable[str]) -> str:
    """Return the text of ``pieces``, as fairseq prints it: without tags of languages."""
    return "".join(piece for piece in pieces if piece != BEGIN and not is_tag(piece)).replace(SPACE, " ").strip()


def whole(pieces: Sequence[str]) -> int:
    """Return the number of pieces in whole words: those before the last piece that begins a word."""
    return next((i for i in range(len(pieces) - 1, -1, -1) if begins_word(pieces[i])), 0)


def words(pieces: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield each word of a finished sentence and the index of the piece that completes it.

    That is the first piece of the next word, or ``len(pieces)``, the end of the sentence.
    """
    start = 0
    for i in range(1, len(pieces) + 1):
        if i == len(pieces) or begins_word(pieces[i]):
            if text := join(pieces[start:i]):
                yield text, i
            start = i
