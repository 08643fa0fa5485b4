"""Draw distinct English sentences from the demo's phrase grammar, each with its one German translation.

Every random choice shows in the English sentence, so that the translation is a function of it, which a model can learn
without error.
"""

from collections.abc import Callable, Iterator
from random import Random

from examples.demo_corpus.phrasebook import patterns as p
from examples.demo_corpus.phrasebook.clause import Pair
from examples.demo_corpus.phrasebook.phrases import Draw

# the sentences of a seed depend on this order
ALL = (p.timetable, p.travel, p.price, p.count, p.fronted, p.whether, p.report, p.question)
PATTERNS: dict[str, Callable[[Draw], Pair]] = {pattern.__name__: pattern for pattern in ALL}
GROUPS = {"all": tuple(PATTERNS), "simple": ("travel",)}
LENGTHS = range(4, 15)  # words of a sentence, in either language
PATIENCE = 500  # the patterns are exhausted after this many draws in a row without a new sentence


def choose(names: str) -> list[Callable[[Draw], Pair]]:
    """Return the patterns of a group (``all``; ``simple``, with few words) or of names separated by commas.

    Raises:
        ValueError: a pattern is unknown.
    """
    wanted = GROUPS.get(names) or [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in PATTERNS]
    if unknown:
        known = ", ".join((*GROUPS, *PATTERNS))
        raise ValueError(f"unknown pattern ({unknown[0]}): choose from {known}")
    return [PATTERNS[name] for name in wanted]


def stream(seed: int, patterns: str = "all") -> Iterator[Pair]:
    """Yield distinct sentences (no English and no German one twice) until the patterns are exhausted."""
    draw, chosen, seen = Draw(Random(seed)), choose(patterns), set()
    idle = 0
    while idle < PATIENCE:
        pair, idle = draw.one(chosen)(draw), idle + 1
        fits = all(len(side.split()) in LENGTHS for side in pair)
        if fits and pair.en not in seen and pair.de not in seen:
            seen.update(pair)
            idle = 0
            yield pair


def sentences(count: int, seed: int, patterns: str = "all") -> list[Pair]:
    """Return the first ``count`` sentences of a stream; a longer list starts with the shorter one of the same seed.

    Raises:
        ValueError: the patterns have fewer sentences.
    """
    found = [pair for pair, _ in zip(stream(seed, patterns), range(count), strict=False)]
    if len(found) < count:
        raise ValueError(f"too few sentences in patterns {patterns!r} ({len(found)} of {count}): ask for fewer")
    return found
