"""Prepare one speaker's recordings for text to speech: log-mel spectrograms, manifests, symbols, configuration.

FOLDER is LJSpeech (metadata.csv and wavs/), or a language pair in MuST-C's layout (data/SPLIT/...), of which one
speaker and the transcripts are used. OUTPUT gets mel80.zip, train.tsv, dev.tsv and a test set, dict.txt, gcmvn.npz and
config.yaml. A stopped run continues when it is run again. The folder may be moved afterwards.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from mla_fairseq.cli.options import Help, run_command
from mla_fairseq.data.extraction import num_workers
from mla_fairseq.data.prepare_speech import Options, prepare, read_durations
from mla_fairseq.data.spoken_text import UNITS, SpokenText
from mla_fairseq.errors import needs
from mla_fairseq.files import user_dir
from mla_fairseq.speech.mel import MelSpectrogram


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-prepare-tts``."""
    parser = argparse.ArgumentParser(prog="mla-prepare-tts", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder of the corpus")
    add("--output", type=Path, required=True, help="folder to write")
    add("--speaker", help="speaker to use, if a corpus in MuST-C's layout has several")
    add(
        "--unit",
        choices=UNITS,
        default="characters",
        help="symbols that the model reads; phonemes are made by espeak-ng",
    )
    add("--language", default="en-us", help="language of the phonemes, as espeak-ng names it")
    add(
        "--sample-rate",
        type=int,
        default=MelSpectrogram.sample_rate,
        help="sample rate in Hz; audio of other rates is resampled",
    )
    add("--hop-length", type=int, default=MelSpectrogram.hop_length, help="distance of frames, in samples")
    add("--f-min", type=float, default=MelSpectrogram.f_min, help="lowest frequency of the filters, in Hz")
    add("--f-max", type=float, default=MelSpectrogram.f_max, help="highest frequency of the filters, in Hz")
    add(
        "--trim",
        type=float,
        default=40.0,
        help="loudness, in dB below the loudest part, under which silence at the ends is cut off; 0: none",
    )
    add("--dev", type=int, help="random clips to validate on, in LJSpeech's layout (default: 5 %% of all, at most 100)")
    add("--test", type=int, help="random clips to test on, in LJSpeech's layout (default: 5 %% of all, at most 100)")
    add("--seed", type=int, default=1, help="seed of the choice of those clips")
    add("--min-seconds", type=float, default=0.3, help="shortest training clip, in s")
    add("--max-seconds", type=float, default=20.0, help="longest training clip, in s")
    add(
        "--durations",
        type=Path,
        metavar="FILE",
        help="file with the frames of each symbol, if you have them, in lines such as NAME|3 12 5",
    )
    add("--workers", type=int, default=num_workers(), help="number of processes")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-prepare-tts``."""
    run_command(build_parser(), run, argv, logging.INFO, continues=True)


def run(arguments: argparse.Namespace) -> None:
    """Prepare the corpus.

    Raises:
        ValueError, OSError: the corpus or the options cannot be used.
    """
    with needs("tts"):
        import librosa  # noqa: F401 -- before the work begins
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
    fairseq += f" --user-dir {user_dir()} --task text_to_speech_mla --arch tts_transformer_mla"
    logging.info("ready: %s ...", fairseq)
