"""A translation as its reader saw it: which words appeared when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from mla_fairseq.evaluation.instances import Instance

_END = "(end of speech)"
_STAMP = "{:7.2f} s  "
_STAMP_WIDTH = len(_STAMP.format(0))


@dataclass(frozen=True)
class Moment:
    """Words that appeared at once.  ``seconds`` counts from the start of the audio."""

    seconds: float
    words: tuple[str, ...]


def moments(instance: Instance, computation_aware: bool = False) -> Iterator[Moment]:
    """The words in the order of their appearance, those of one moment together.

    Args:
        instance: the sentence.
        computation_aware: by the clock (``elapsed``) instead of by the audio that had been heard (``delays``).

    Raises:
        ValueError: ``computation_aware``, but the log holds no ``elapsed``.
    """
    times = instance.elapsed if computation_aware else instance.delays
    if len(times) != len(instance.units):
        raise ValueError(f"sentence {instance.index} has no computation-aware times; show it without them.")
    for time, group in groupby(zip(times, instance.units, strict=True), key=lambda pair: pair[0]):
        yield Moment(time / 1000, tuple(word for _, word in group))


def transcript_lines(instance: Instance, computation_aware: bool = False, width: int = 80) -> Iterator[str]:
    """One line for each moment; its words stand where they continue the line above, so that the eye reads on.

    The end of the speech has a line of its own: what comes below it was written with everything heard.

    Args:
        instance: the sentence.
        computation_aware: see ``moments``.
        width: columns of a line; a sentence that reaches them goes on at the left.

    Raises:
        ValueError: see ``moments``.
    """
    end, column, ended = instance.source_length / 1000, 0, False
    for moment in moments(instance, computation_aware):
        if not ended and moment.seconds >= end:
            ended = True
            yield _STAMP.format(end) + _END
        for position, text in _lay_out(moment.words, instance.separator, column, width - _STAMP_WIDTH):
            yield _STAMP.format(moment.seconds) + " " * position + text
            column = position + len(text + instance.separator)
    if not ended:
        yield _STAMP.format(end) + _END


def transcript(instance: Instance, computation_aware: bool = False, width: int = 80) -> str:
    """The lines of ``transcript_lines`` as one text; raises as they do."""
    return "\n".join(transcript_lines(instance, computation_aware, width)) + "\n"


def _lay_out(words: tuple[str, ...], separator: str, column: int, width: int) -> Iterator[tuple[int, str]]:
    """(Column, text) of the lines that ``words`` need; a word longer than a line gets one to itself."""
    text = ""
    for word in words:
        longer = f"{text}{separator}{word}" if text else word
        if column + len(longer) > width and (text or column):
            if text:
                yield column, text
            column, longer = 0, word
        text = longer
    yield column, text
