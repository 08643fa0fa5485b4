"""Generate the demo's speech corpus: English sentences of a phrase grammar, spoken by espeak-ng, and translations.

Writes OUTPUT/en-de/data/{train,dev,tst-COMMON}/{wav,txt} in MuST-C's layout, for mla-prepare --data OUTPUT. A stopped
run continues when it is run again; a finished one does nothing. The speech is synthetic: report results as such. Fewer
patterns, sentences and voices are easier and faster to learn.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from examples.demo_corpus.corpus import VOICES, make_corpus
from examples.demo_corpus.grammar import PATTERNS
from mla_fairseq.cli.options import Help
from mla_fairseq.data.extraction import num_workers
from mla_fairseq.errors import user_errors

PATTERNS_HELP = (
    "sentence patterns: all; simple (one pattern with fewer than 200 words, for quick tests); or some of "
    f"{', '.join(PATTERNS)}, with commas between them"
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m examples.demo_corpus``."""
    parser = argparse.ArgumentParser("python -m examples.demo_corpus", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("--output", type=Path, required=True, help="folder to write the language pair en-de to")
    add("--sentences", type=int, default=6000, help="number of training sentences")
    add("--dev", type=int, default=300, help="number of sentences in dev; none of them occurs in train")
    add("--test", type=int, default=300, help="number of sentences in tst-COMMON; none of them occurs in train or dev")
    add("--patterns", default="all", help=PATTERNS_HELP)
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--voices", type=int, default=len(VOICES), help=f"number of voices, of {len(VOICES)}")
    who.add_argument("--voice", type=int, help=f"number of the only voice, 1 to {len(VOICES)}, for text to speech")
    add("--rate", type=int, help="words per minute (default: a fast rate for each voice)")
    add("--seed", type=int, default=1, help="random seed of sentences, pauses and noise")
    add("--workers", type=int, default=num_workers(), help="number of processes")
    return parser


def main() -> None:
    """Run ``python -m examples.demo_corpus``."""
    arguments = build_parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    with user_errors(types=(ValueError, OSError)):
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
