"""Make the demo's speech corpus: English sentences of a phrase grammar, spoken by espeak-ng, with German translations.

OUTPUT/en-de/data/{train,dev,tst-COMMON}/{wav,txt} in MuST-C's layout, for mla-prepare --data OUTPUT.
A run that was stopped resumes; a run with the same options does nothing. The speech is synthetic: report results as
such. Fewer patterns, sentences and voices make it easier and faster to learn.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from examples.demo_corpus.corpus import VOICES, make_corpus
from examples.demo_corpus.grammar import PATTERNS
from mla_fairseq.data.commands import Help
from mla_fairseq.data.extraction import num_workers
from mla_fairseq.errors import user_errors

PATTERNS_HELP = (
    "sentence patterns: all; simple (one pattern with fewer than 200 words, for quick tests); or some of "
    f"{', '.join(PATTERNS)}, with commas between them"
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m examples.demo_corpus", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder that gets the pair folder en-de")
    add("--sentences", type=int, default=6000, help="sentences to train on")
    add("--dev", type=int, default=300, help="sentences in dev; none of them occurs in train")
    add("--test", type=int, default=300, help="sentences in tst-COMMON; none of them occurs in train or dev")
    add("--patterns", default="all", help=PATTERNS_HELP)
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--voices", type=int, default=len(VOICES), help=f"how many of the {len(VOICES)} voices speak")
    who.add_argument("--voice", type=int, help=f"this voice alone, 1 to {len(VOICES)}; for text to speech")
    add("--rate", type=int, help="words per minute; by default each voice has its own, all of them fast")
    add("--seed", type=int, default=1, help="random seed of sentences, pauses and noise")
    add("--workers", type=int, default=num_workers(), help="processes")
    return parser


def main() -> None:
    arguments = build_parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)  # fairseq has set its own
    with user_errors(kinds=(ValueError, OSError)):
        make_corpus(
            arguments.output,
            arguments.sentences,
            arguments.dev,
            arguments.test,
            patterns=arguments.patterns,
            voices=arguments.voices,
            voice=arguments.voice,
            rate=arguments.rate,
            seed=arguments.seed,
            workers=arguments.workers,
        )


if __name__ == "__main__":
    main()
