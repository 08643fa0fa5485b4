"""Speak texts, or a prepared test set, with a trained text-to-spectrogram model.

OUTPUT gets NAME.wav for each text and, unless --no-pictures, a picture of its spectrogram, of where the model looked in
the text, and of when it would end. Of a test set, mel-cepstral distortion along the best path of dynamic time warping
(against the recorded spectrogram through the same vocoder) and errors of duration go to scores.json; with --recogniser
so do the word error rates that an independent recogniser makes of both.
"""

from __future__ import annotations

import argparse
import ast
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import soundfile
import torch
from tqdm import tqdm

from mla_fairseq.errors import needs, user_errors
from mla_fairseq.evaluation import recognition
from mla_fairseq.evaluation.offline import word_error_rate
from mla_fairseq.evaluation.recognition import Recogniser, words
from mla_fairseq.evaluation.synthesis_picture import draw_synthesis
from mla_fairseq.files import read_text, write_json, write_text
from mla_fairseq.synthesis.speaker import Speaker, as_samples
from mla_fairseq.synthesis.vocoder import hifi_gan

with needs("tts"):
    from mla_fairseq.evaluation.spectra import SpectraScores, mel_cepstral_distortion


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mla-synthesize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="that fairseq-train saved")
    add("--data", type=Path, required=True, help="folder that mla-prepare-tts prepared")
    add("--config-yaml", default="config.yaml", help="data configuration in it (default: config.yaml)")
    add("--output", type=Path, required=True, help="folder to write")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", nargs="+", help="sentences to speak")
    what.add_argument("--text-file", type=Path, help="file of sentences, one a line")
    what.add_argument("--gen-subset", help="prepared set to speak and to score, such as test")
    add("--teacher-forcing", action="store_true", help="write each step upon the recorded ones (test sets)")
    add("--speaker", help="whose voice, of a model of several; sets have their own (default: the only one)")
    add("--batch-size", type=int, default=16, help="texts at once (default: 16)")
    add("--max-tokens", type=int, default=20000, help="frames at once, of test sets (default: 20000)")
    add("--max-length-ratio", type=float, help="end at so many times the expected length (default: 2)")
    add("--model-overrides", default="{}", help="model options to change, a Python dictionary, as in fairseq")
    add("--vocoder-checkpoint", type=Path, help="weights of a HiFi-GAN generator (default: Griffin-Lim)")
    add("--vocoder-config", type=Path, help="and its json file")
    add(
        "--recogniser",
        type=installed,
        choices=("english", "train"),
        help="let pocketsphinx write down a set's speech (English alone), with its own language model or with bigrams "
        "of the training texts",
    )
    add("--device", default="cpu", help="of torch (default: cpu)")
    add("--seed", type=int, default=1, help="of the pre-net's dropout, which is never off (default: 1)")
    add("--no-pictures", action="store_true", help="write wav files alone")
    return parser


def installed(recogniser: str) -> str:
    """Return the recogniser's name, if pocketsphinx is installed: a recipe learns that before the training."""
    try:
        recognition.check()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return recogniser


def sentences(args: argparse.Namespace) -> list[str]:
    """The texts to speak.

    Raises:
        ValueError: there is none.
    """
    lines = args.text or read_text(args.text_file).splitlines()
    if not (texts := [line.strip() for line in lines if line.strip()]):
        raise ValueError(f"there is no sentence in {args.text_file or '--text'}")
    return texts


def load(args: argparse.Namespace) -> Speaker:
    """The model with its vocoder.

    Raises:
        ValueError: flags or files that do not fit.
    """
    if (args.vocoder_checkpoint is None) != (args.vocoder_config is None):
        raise ValueError("a HiFi-GAN vocoder needs both --vocoder-checkpoint and --vocoder-config")
    if args.teacher_forcing and not args.gen_subset:
        raise ValueError("--teacher-forcing needs recorded speech: name a set by --gen-subset")
    if args.recogniser and not args.gen_subset:
        raise ValueError("--recogniser compares with recorded speech: name a set by --gen-subset")
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, but is {args.batch_size}")
    try:
        overrides = dict(ast.literal_eval(args.model_overrides))
    except (ValueError, SyntaxError, TypeError) as error:
        raise ValueError(f"--model-overrides {args.model_overrides} is no Python dictionary") from error
    if args.max_length_ratio is not None:
        overrides["max_length_ratio"] = args.max_length_ratio
    forced, device = args.teacher_forcing, args.device
    speaker = Speaker(args.checkpoint, args.data, args.config_yaml, overrides, None, forced, device)
    if args.vocoder_checkpoint:
        speaker.generator.vocoder = hifi_gan(args.vocoder_checkpoint, args.vocoder_config, speaker.features)
    return speaker


def spoken(args: argparse.Namespace, speaker: Speaker, texts: list[str]) -> Iterator[dict]:
    """What was made of one text after the other, or of a set, with its ``id`` and ``text``."""
    if args.gen_subset:
        yield from speaker.synthesize_set(args.gen_subset, args.max_tokens, not args.no_pictures)
        return
    for start in range(0, len(texts), args.batch_size):
        part = texts[start : start + args.batch_size]
        made = speaker.synthesize(part, not args.no_pictures, args.speaker)
        for place, (text, one) in enumerate(zip(part, made, strict=True), start + 1):
            yield one | {"id": f"{place:04d}", "text": text}


def keep(args: argparse.Namespace, speaker: Speaker, one: dict) -> None:
    """Write the waveform and the picture of an utterance."""
    stem = args.output / one["id"]
    soundfile.write(f"{stem}.wav", as_samples(one["waveform"]), speaker.sample_rate)
    if not args.no_pictures:
        arrays = (one[name].detach().cpu().float().numpy() for name in ("feature", "attn", "eos_prob"))
        with needs("plots"):
            draw_synthesis(stem, *arrays, one["symbols"], speaker.seconds_per_frame, one["text"])


def recogniser(args: argparse.Namespace, speaker: Speaker) -> Recogniser | None:
    """Who writes down what is spoken, if anybody shall."""
    if not args.recogniser:
        return None
    if not any(words(text) for text in speaker.texts(args.gen_subset)):
        raise ValueError(f"--recogniser knows English alone, but {args.gen_subset} has no word of Latin letters")
    found = Recogniser(speaker.texts("train") if args.recogniser == "train" else None)
    asked = {word for text in speaker.texts(args.gen_subset) for word in words(text)}
    if strange := sorted(word for word in asked if not found.knows(word)):
        some = ", ".join(strange[:5])
        print(f"{len(strange)} of {len(asked)} words are not in the recogniser's dictionary, it errs on them: {some}")
    return found


class Scores:
    """Figures of a set, utterance by utterance."""

    def __init__(self, speaker: Speaker, recogniser: Recogniser | None) -> None:
        self.speaker, self.recogniser = speaker, recogniser
        self.rows: list[tuple[float, float, float, bool]] = []
        self.names: list[str] = []
        self.texts: list[str] = []
        self.heard: dict[str, list[str]] = {"": [], "recorded_": []}

    def add(self, one: dict) -> None:
        """Compare an utterance with the recorded one, through the same vocoder."""
        rate = self.speaker.sample_rate
        made, recorded = (
            wave.detach().cpu().numpy() for wave in (one["waveform"], self.speaker.generator.speak(one["targ_feature"]))
        )
        seconds = (len(one[name]) * self.speaker.seconds_per_frame for name in ("targ_feature", "feature"))
        self.rows.append((mel_cepstral_distortion(recorded, made, rate), *seconds, one["ended"]))
        if self.recogniser:
            self.names.append(one["id"])
            self.texts.append(" ".join(words(one["text"])))
            for name, samples in zip(self.heard, (made, recorded), strict=True):
                self.heard[name].append(self.recogniser.transcribe(samples, rate))

    def figures(self) -> dict[str, float]:
        """Means over the set; word error rates per 100 words."""
        found = asdict(SpectraScores.of(self.rows))
        if self.recogniser:
            found |= {
                f"{name}word_error_rate": word_error_rate(heard, self.texts) for name, heard in self.heard.items()
            }
        return found


def run(args: argparse.Namespace) -> None:
    """Speak, write and score; raises ValueError or OSError."""
    texts = [] if args.gen_subset else sentences(args)
    speaker = load(args)
    scores = Scores(speaker, recogniser(args, speaker)) if args.gen_subset else None
    args.output.mkdir(parents=True, exist_ok=True)
    for name in ("scores.json", "heard.tsv"):  # of another run
        (args.output / name).unlink(missing_ok=True)
    torch.manual_seed(args.seed)
    speaker.warm_up()
    seconds, cut = 0.0, 0
    for one in tqdm(spoken(args, speaker, texts), desc="speak", unit="utt"):
        keep(args, speaker, one)
        seconds += len(one["waveform"]) / speaker.sample_rate
        cut += not one["ended"]
        if scores:
            scores.add(one)
    factor = speaker.seconds / max(seconds, 1e-9)
    print(f"{seconds:.1f} s of speech in {speaker.seconds:.1f} s, a real-time factor of {factor:.3f}")
    if cut:
        print(f"{cut} utterances were ended by the limit of lengths, not by the model")
    if scores:
        report(args, scores, factor)


def report(args: argparse.Namespace, scores: Scores, factor: float) -> None:
    """Print the scores, and write scores.json and, of a recogniser, heard.tsv."""
    found = scores.figures() | {"real_time_factor": factor, "teacher_forcing": args.teacher_forcing, "seed": args.seed}
    if args.teacher_forcing:  # which gives lengths, and takes one step
        given = ("duration_error", "duration_ratio", "ended", "real_time_factor")
        found = {name: value for name, value in found.items() if name not in given}
    write_json(args.output / "scores.json", found)
    durations = "" if args.teacher_forcing else f", error of duration {found['duration_error']:.1%}"
    print(f"mel-cepstral distortion {found['mcd']:.2f}{durations}")
    if scores.recogniser:
        rows = zip(scores.names, scores.texts, *scores.heard.values(), strict=True)
        lines = ["\t".join(row) for row in [("id", "text", "heard", "heard_of_the_recording"), *rows]]
        write_text(args.output / "heard.tsv", "\n".join(lines) + "\n")
        print(
            f"word error rate of the recogniser: {found['word_error_rate']:.1f} % of the synthesised speech, "
            f"{found['recorded_word_error_rate']:.1f} % of the recorded speech through the same vocoder"
        )


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    warnings.filterwarnings("ignore", "'pin_memory' argument is set", UserWarning)  # fairseq always sets it
    with user_errors(kinds=(ValueError, OSError)):
        run(args)
