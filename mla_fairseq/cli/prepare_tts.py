"""Prepare one voice's recordings for text to speech: log-mel spectrograms, manifests, symbols, configuration.

FOLDER is LJSpeech (metadata.csv and wavs/), or a pair of a corpus in MuST-C's layout (data/SPLIT/...), of which one
speaker is taken, with the transcripts. OUTPUT gets mel80.zip, train.tsv, dev.tsv and a test set, dict.txt, gcmvn.npz
and config.yaml. A run that was stopped continues where it was. The folder may be moved afterwards.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from mla_fairseq.data.commands import Help
from mla_fairseq.data.extraction import num_workers
from mla_fairseq.data.spoken_text import UNITS, SpokenText
from mla_fairseq.errors import needs, user_errors

with needs("tts"):
    from mla_fairseq.data.prepare_speech import Options, prepare, read_durations
    from mla_fairseq.speech.mel import MelSpectrogram


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mla-prepare-tts", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="the corpus")
    add("--output", type=Path, required=True, help="folder to write")
    add("--speaker", help="speaker to take, where a corpus in MuST-C's layout has several")
    add("--unit", choices=UNITS, default="characters", help="what the model reads; phonemes are espeak-ng's")
    add("--language", default="en-us", help="espeak-ng's name of the language, for phonemes")
    add("--sample-rate", type=int, default=MelSpectrogram.sample_rate, help="in Hz; others are resampled")
    add("--hop-length", type=int, default=MelSpectrogram.hop_length, help="samples from frame to frame")
    add("--f-min", type=float, default=MelSpectrogram.f_min, help="lowest frequency of the filters, in Hz")
    add("--f-max", type=float, default=MelSpectrogram.f_max, help="highest frequency of the filters, in Hz")
    add("--trim", type=float, default=40.0, help="cut off silence, so many decibels below the loudest; 0: nothing")
    add("--dev", type=int, help="clips to validate on, drawn (LJSpeech's layout; default: a twentieth, at most 100)")
    add("--test", type=int, help="clips to test on, drawn (LJSpeech's layout; default: a twentieth, at most 100)")
    add("--seed", type=int, default=1, help="of that draw")
    add("--min-seconds", type=float, default=0.3, help="shortest training clip")
    add("--max-seconds", type=float, default=20.0, help="longest training clip")
    add("--durations", type=Path, metavar="FILE", help="lines NAME|3 12 5: the frames of each symbol, if you have them")
    add("--workers", type=int, default=num_workers(), help="processes")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    with user_errors(kinds=(ValueError, OSError)):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Prepare the corpus; raises ValueError or OSError."""
    options = Options(
        text=SpokenText(arguments.unit, arguments.language),
        mel=MelSpectrogram(
            sample_rate=arguments.sample_rate,
            hop_length=arguments.hop_length,
            f_min=arguments.f_min,
            f_max=arguments.f_max,
        ),
        speaker=arguments.speaker,
        trim=arguments.trim,
        dev=arguments.dev,
        test=arguments.test,
        seed=arguments.seed,
        min_seconds=arguments.min_seconds,
        max_seconds=arguments.max_seconds,
        durations=arguments.durations and read_durations(arguments.durations),
        workers=arguments.workers,
    )
    path = prepare(arguments.folder, arguments.output, options)
    fairseq = f"fairseq-train {path.parent} --config-yaml {path.name} --train-subset train --valid-subset dev"
    logging.info("ready: %s --user-dir mla_fairseq --task text_to_speech_mla --arch tts_transformer_mla ...", fairseq)
