#!/usr/bin/env python3
"""Prepare corpora in MuST-C's layout for fairseq: filter banks, manifests, vocabulary, configuration.

DATA/en-de/data/{train,dev,tst-COMMON,...}/{wav/*.wav, txt/SPLIT.yaml, txt/SPLIT.en, txt/SPLIT.de}  ->  DATA/en-de/
{fbank80.zip, SPLIT_st.tsv, spm_*_st.{model,txt}, config_st.yaml}. A run that was stopped continues where it was, and
a run with other options redoes only what depends on them. The folder may be moved afterwards.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from mla_fairseq.data.config import SPECAUGMENT
from mla_fairseq.data.extraction import num_workers
from mla_fairseq.data.prepare import Options, data_root, prepare
from mla_fairseq.data.vocabulary import Vocabulary
from mla_fairseq.errors import UserError


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder that holds the pairs; without it the environment's DATA")
    add("--pairs", nargs="+", required=True, metavar="PAIR", help="language pairs (folders of DATA), such as en-de")
    add("--output", type=Path, help="write to OUTPUT/PAIR instead of the pair's own folder")
    add("--task", choices=["asr", "st"], default="st", help="write the source text (asr) or its translation (st)")
    add("--vocab-type", choices=["unigram", "bpe", "char"], default="unigram", help="kind of SentencePiece model")
    add("--vocab-size", type=int, default=8000, help="pieces; 1000 to 2000 suit a few thousand sentences; not for char")
    add(
        "--cmvn",
        choices=["utterance", "global"],
        default="utterance",
        help="normalise by each utterance's own mean and "
        "variance, or by the training split's (needed for simultaneous translation)",
    )
    add(
        "--specaugment",
        choices=list(SPECAUGMENT),
        default="sm",
        help="masks in training; sm and ss hide at most a fifth "
        "of an utterance at a time, which short utterances survive; lb and ld are for long ones",
    )
    add("--min-frames", type=int, default=5, help="shortest training utterance, in frames of 10 ms")
    add("--max-frames", type=int, default=3000, help="longest training utterance, in frames of 10 ms")
    add("--workers", type=int, help="processes; without it one per core")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)  # fairseq has set its own
    options = Options(
        task=arguments.task,
        vocabulary=Vocabulary(arguments.vocab_type, arguments.vocab_size),
        cmvn=arguments.cmvn,
        specaugment=arguments.specaugment,
        min_frames=arguments.min_frames,
        max_frames=arguments.max_frames,
        workers=num_workers(arguments.workers),
    )
    try:
        for pair in arguments.pairs:
            output = arguments.output and arguments.output / pair
            path = prepare(data_root(arguments.data) / pair, output, options)
            logging.info("%s: ready, fairseq-train %s --config-yaml %s", pair, path.parent, path.name)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


if __name__ == "__main__":
    main()
