"""Prepare corpora for fairseq: filter banks, manifests, vocabulary, configuration.

DATA/en-de/data/{train,dev,tst-COMMON,...}/{wav/*.wav, txt/SPLIT.yaml, txt/SPLIT.en, txt/SPLIT.de}, which is MuST-C's
layout, or that of CoVoST 2, Europarl-ST, mTEDx or plain manifests  ->  DATA/en-de/{fbank80.zip, SPLIT_st.tsv,
spm_*_st.{model,txt}, config_st.yaml}. A stopped run continues when it is run again, and a run with other options
repeats only what depends on them. The folder may be moved afterwards.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from mla_fairseq.cli.options import Help, add_data, at_least, data_root, run_command
from mla_fairseq.data.config import SPECAUGMENT
from mla_fairseq.data.extraction import num_workers
from mla_fairseq.data.joint import JointPreparation
from mla_fairseq.data.prepare import Options, prepare
from mla_fairseq.data.vocabulary import GivenVocabulary, Vocabulary
from mla_fairseq.files import user_dir

CMVN = (
    "source of the mean and variance that features are normalised by: each utterance, or the training split (global, "
    "needed by simultaneous models, which translate speech as it arrives)"
)
VOCAB = (
    "SentencePiece model to use instead of training one: that of the prepared folder whose model is to be fine-tuned "
    "on this corpus; --vocab-type and --vocab-size are ignored"
)
JOINT = (
    "one folder with a common vocabulary for one model that translates into all languages: sets such as "
    "train_de_st.tsv, features in OUTPUT/PAIR, a tag such as <lang:de> before each target (default OUTPUT: DATA)"
)
SPEEDS = (
    "speeds at which the training splits are repeated, by resampling, such as 0.9,1.0,1.1: three times the training "
    "set, for small corpora"
)
COLUMN = (
    "column of plain manifests that the training splits have as target in place of tgt_text, such as the translations "
    "of a teacher"
)
MASKS = (
    "SpecAugment policy of the training splits: sm and ss hide at most a fifth of an utterance at a time, for short "
    "utterances and small corpora; lb and ld hide up to a second"
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-prepare``."""
    parser = argparse.ArgumentParser(prog="mla-prepare", description=__doc__, formatter_class=Help)
    add_data(parser)
    add = parser.add_argument
    add("--pairs", nargs="+", required=True, metavar="PAIR", help="language pairs, such as en-de")
    add("--output", type=Path, help="folder to write to, OUTPUT/PAIR for each pair (default: the folders of the pairs)")
    add("--joint", action="store_true", help=JOINT)
    add(
        "--task",
        choices=["asr", "st"],
        default="st",
        help="target of the manifests: the transcript (asr) or the translation (st)",
    )
    add("--vocab-type", choices=["unigram", "bpe", "char"], default="unigram", help="type of the SentencePiece model")
    add(
        "--vocab-size",
        type=at_least(1),
        default=8000,
        help="number of pieces, about 1000 for a few thousand sentences; ignored by char",
    )
    add("--vocab", type=Path, metavar="MODEL", help=VOCAB)
    add("--cmvn", choices=["utterance", "global"], default="utterance", help=CMVN)
    add("--specaugment", choices=list(SPECAUGMENT), default="sm", help=MASKS)
    add("--min-frames", type=at_least(1), default=5, help="shortest training utterance, in frames of 10 ms")
    add("--max-frames", type=at_least(1), default=3000, help="longest training utterance, in frames of 10 ms")
    add("--speed-perturb", type=parse_speeds, default="1.0", metavar="S,S,..", help=SPEEDS)
    add("--target-column", metavar="NAME", help=COLUMN)
    add("--workers", type=at_least(1), default=num_workers(), help="number of processes")
    return parser


def parse_speeds(text: str) -> tuple[float, ...]:
    """Return the speeds as the type of a flag.

    Raises:
        ArgumentTypeError: one of them is not a number.
    """
    try:
        return tuple(float(speed) for speed in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers: write 0.9,1.0,1.1") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-prepare``."""
    run_command(build_parser(), run, argv, logging.INFO, continues=True)


def run(arguments: argparse.Namespace) -> None:
    """Prepare every pair.

    Raises:
        ValueError, OSError: the corpus or the options cannot be used.
    """
    given = arguments.vocab and GivenVocabulary.read(arguments.vocab)
    options = Options(
        task=arguments.task,
        vocabulary=given or Vocabulary(arguments.vocab_type, arguments.vocab_size),
        cmvn=arguments.cmvn,
        specaugment=arguments.specaugment,
        min_frames=arguments.min_frames,
        max_frames=arguments.max_frames,
        speeds=arguments.speed_perturb,
        layout=arguments.corpus_format,
        target_column=arguments.target_column,
        workers=arguments.workers,
    )
    pairs = [data_root(arguments.data) / pair for pair in arguments.pairs]
    if arguments.joint:
        joint = JointPreparation(pairs, arguments.output or data_root(arguments.data), options)
        report(" ".join(arguments.pairs), joint.run(), f"{joint.flags} ...")
        return
    for pair in pairs:
        report(pair.name, prepare(pair, arguments.output and arguments.output / pair.name, options), "...")


def report(name: str, config: Path, more: str) -> None:
    """Log the command that trains on a prepared folder."""
    fairseq = f"fairseq-train {config.parent} --config-yaml {config.name}"
    logging.info("%s: ready: %s --user-dir %s --task speech_to_text_mla %s", name, fairseq, user_dir(), more)
