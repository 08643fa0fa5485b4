"""Show a translation as its reader saw it: which words appeared when."""

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
    """Words that appeared at the same time, in seconds from the start of the audio."""

    seconds: float
    words: tuple[str, ...]


def moments(instance: Instance, computation_aware: bool = False) -> Iterator[Moment]:
    """Yield the words in the order of appearance, grouped by time.

    Args:
        instance: the sentence.
        computation_aware: use times with computing (``elapsed``) instead of the audio read (``delays``).

    Raises:
        ValueError: ``computation_aware``, but the log has no ``elapsed``.
    """
    times = instance.elapsed if computation_aware else instance.delays
    if len(times) != len(instance.units):
        raise ValueError(f"sentence {instance.index} has no elapsed times: show it without computing time")
    for time, group in groupby(zip(times, instance.units, strict=True), key=lambda pair: pair[0]):
        yield Moment(time / 1000, tuple(word for _, word in group))


def transcript_lines(instance: Instance, computation_aware: bool = False, width: int = 80) -> Iterator[str]:
    """Yield one line for each moment, indented to continue the line above.

    The end of the speech has a separate line: words below it were emitted after the whole source was read.

    Args:
        instance: the sentence.
        computation_aware: see ``moments``.
        width: columns of a line; a longer sentence continues at the left.

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
    """Return the lines of ``transcript_lines`` as one text; see there for arguments and errors."""
    return "\n".join(transcript_lines(instance, computation_aware, width)) + "\n"


def _lay_out(words: tuple[str, ...], separator: str, column: int, width: int) -> Iterator[tuple[int, str]]:
    """Yield (column, text) of each line that ``words`` need; a word longer than a line has a line of its own."""
    text = ""
    for word in words:
        longer = f"{text}{separator}{word}" if text else word
        if column + len(longer) > width and (text or column):
            if text:
                yield column, text
            column, longer = 0, word
        text = longer
    yield column, text
