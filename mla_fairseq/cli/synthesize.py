"""Synthesise texts, or a prepared test set, with a trained text-to-spectrogram model.

OUTPUT gets NAME.wav for each text and, unless --no-pictures, a picture of its spectrogram, its attention to the text
and its end probability. For a test set, scores.json gets the error of the duration and the mel-cepstral distortion from
the recorded spectrogram through the same vocoder, along the best path of dynamic time warping. With --recogniser it
also gets the word error rates of an independent ASR model on synthesised and recorded speech.
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundfile
import torch
from tqdm import tqdm

from mla_fairseq.cli.options import Help, add_user_dir, import_user_dir, run_command
from mla_fairseq.errors import needs
from mla_fairseq.evaluation import recognition
from mla_fairseq.evaluation.recognition import Recogniser, words
from mla_fairseq.evaluation.synthesis_picture import draw_synthesis
from mla_fairseq.files import file_name, make_folder, read_text, write_bytes, write_json
from mla_fairseq.models.overrides import parse_model_overrides
from mla_fairseq.synthesis.speaker import Speaker, as_samples
from mla_fairseq.synthesis.vocoder import hifi_gan

if TYPE_CHECKING:
    from mla_fairseq.evaluation.synthesis_scores import SynthesisScores

RECOGNISER = (
    "ASR model (pocketsphinx, English only) that transcribes a set's speech, with its general language model (english) "
    "or with bigrams of the training texts (train)"
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-synthesize``."""
    parser = argparse.ArgumentParser(prog="mla-synthesize", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of fairseq-train")
    add("--data", type=Path, required=True, help="folder that mla-prepare-tts wrote")
    add("--config-yaml", default="config.yaml", help="data configuration in that folder")
    add("--output", type=Path, required=True, help="folder to write to")
    add_user_dir(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--text", nargs="+", help="sentences to synthesise")
    what.add_argument("--text-file", type=Path, help="file of sentences to synthesise, one per line")
    what.add_argument("--gen-subset", help="prepared set to synthesise and to score, such as test")
    add("--teacher-forcing", action="store_true", help="each step from the recorded frames before it (sets only)")
    add("--speaker", help="speaker, for a model of several; sets name theirs (default: the only one)")
    add("--batch-size", type=int, default=16, help="texts in a batch")
    add("--max-tokens", type=int, default=20000, help="frames in a batch of a set")
    add("--max-length-ratio", type=float, help="longest output, relative to the expected length (default: 2)")
    add("--model-overrides", default="{}", help="model options to change, as a Python dictionary, as in fairseq")
    add("--vocoder-checkpoint", type=Path, help="weights of a HiFi-GAN generator (default: Griffin-Lim)")
    add("--vocoder-config", type=Path, help="json configuration of that generator")
    add("--recogniser", type=installed, choices=("english", "train"), help=RECOGNISER)
    add("--device", default="cpu", help="torch device")
    add("--seed", type=int, default=1, help="seed of the pre-net's dropout, which is never off")
    add("--no-pictures", action="store_true", help="wav files without pictures")
    return parser


def installed(recogniser: str) -> str:
    """Return the name of the ASR model if pocketsphinx is installed, so that a recipe fails before it trains."""
    try:
        recognition.check()
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return recogniser


def sentences(args: argparse.Namespace) -> list[str]:
    """Return the texts to synthesise.

    Raises:
        ValueError: there is none.
    """
    lines = args.text or read_text(args.text_file).splitlines()
    if not (texts := [line.strip() for line in lines if line.strip()]):
        raise ValueError(f"no sentence in {args.text_file or '--text'}: give at least one")
    return texts


def check(args: argparse.Namespace) -> None:
    """Check the flags against each other.

    Raises:
        ValueError: two flags do not fit, or a value is out of range.
    """
    if (args.vocoder_checkpoint is None) != (args.vocoder_config is None):
        raise ValueError("a HiFi-GAN vocoder needs both --vocoder-checkpoint and --vocoder-config: add the other one")
    if args.teacher_forcing and not args.gen_subset:
        raise ValueError("--teacher-forcing needs recorded speech: name a set with --gen-subset")
    if args.recogniser and not args.gen_subset:
        raise ValueError("--recogniser compares with recorded speech: name a set with --gen-subset")
    if args.batch_size < 1:
        raise ValueError(f"--batch-size is {args.batch_size}: give at least 1")
    ratio = args.max_length_ratio
    if ratio is not None and not 0 < ratio < math.inf:  # NaN is not, either
        raise ValueError(f"--max-length-ratio is {ratio:g}: give a number above 0, such as 2")


def load(args: argparse.Namespace) -> Speaker:
    """Return the model with its vocoder.

    Raises:
        ValueError: flags or files do not fit.
    """
    import_user_dir(args.user_dir)
    overrides = parse_model_overrides(args.model_overrides)
    if args.max_length_ratio is not None:
        overrides["max_length_ratio"] = args.max_length_ratio
    forced, device = args.teacher_forcing, args.device
    speaker = Speaker(args.checkpoint, args.data, args.config_yaml, overrides, None, forced, device)
    if args.vocoder_checkpoint:
        speaker.generator.vocoder = hifi_gan(args.vocoder_checkpoint, args.vocoder_config, speaker.features)
    return speaker


def load_recogniser(args: argparse.Namespace, speaker: Speaker) -> Recogniser | None:
    """Return the ASR model if one was asked for; report words that it does not know.

    Raises:
        ValueError: the set is not in Latin letters.
    """
    if not args.recogniser:
        return None
    wanted = {word for text in speaker.texts(args.gen_subset) for word in words(text)}
    if not wanted:
        raise ValueError(f"--recogniser is for English, but {args.gen_subset} has no word of Latin letters: remove it")
    recogniser = Recogniser(speaker.texts("train") if args.recogniser == "train" else None)
    if unknown := sorted(word for word in wanted if not recogniser.knows(word)):
        share, some = f"{len(unknown)} of {len(wanted)} words", ", ".join(unknown[:5])
        print(f"{share} are not in the ASR model's dictionary and count as errors, such as {some}")
    return recogniser


def synthesized(args: argparse.Namespace, speaker: Speaker, texts: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the utterances of the texts or of the set, each with its ``id`` and ``text``."""
    if args.gen_subset:
        for name in speaker.ids(args.gen_subset):  # they name the files, so all are checked before the first is written
            file_name(name, f"an id in {args.data / args.gen_subset}.tsv")
        yield from speaker.synthesize_set(args.gen_subset, args.max_tokens, not args.no_pictures)
    else:
        yield from speaker.synthesize_all(texts, args.batch_size, not args.no_pictures, args.speaker)


def save(args: argparse.Namespace, speaker: Speaker, one: dict[str, Any]) -> None:
    """Write the waveform and the picture of an utterance."""
    stem = args.output / one["id"]
    file = io.BytesIO()  # soundfile's errors of a full disk name neither the file nor the reason
    soundfile.write(file, as_samples(one["waveform"]), speaker.sample_rate, format="WAV")
    write_bytes(Path(f"{stem}.wav"), file.getvalue())
    if not args.no_pictures:
        mel, attention, end = (one[name].detach().cpu().float().numpy() for name in ("feature", "attn", "eos_prob"))
        with needs("plots"):
            draw_synthesis(stem, mel, attention, end, one["symbols"], speaker.seconds_per_frame, one["text"])


def score(scores: SynthesisScores, speaker: Speaker, one: dict[str, Any]) -> None:
    """Add an utterance of a set to the scores."""
    recorded = speaker.generator.speak(one["targ_feature"])
    assert recorded is not None  # a speaker has a vocoder
    seconds = (len(one["targ_feature"]) * speaker.seconds_per_frame, len(one["feature"]) * speaker.seconds_per_frame)
    made_samples, recorded_samples = (wave.detach().cpu().numpy() for wave in (one["waveform"], recorded))
    scores.add(one["id"], one["text"], made_samples, recorded_samples, seconds, one["ended"])


def run(args: argparse.Namespace) -> None:
    """Synthesise, write and score.

    Raises:
        ValueError, OSError: flags or files are wrong.
    """
    if not args.no_pictures:
        with needs("plots"):
            import matplotlib  # noqa: F401 -- before the work begins
    with needs("tts"):
        from mla_fairseq.evaluation.synthesis_scores import SynthesisScores
    check(args)
    texts = [] if args.gen_subset else sentences(args)
    speaker = load(args)
    scores = SynthesisScores(speaker.sample_rate, load_recogniser(args, speaker)) if args.gen_subset else None
    make_folder(args.output)
    for name in ("scores.json", "heard.tsv"):  # of an earlier run
        (args.output / name).unlink(missing_ok=True)
    torch.manual_seed(args.seed)
    speaker.warm_up()
    seconds, cut = 0.0, 0
    for one in tqdm(synthesized(args, speaker, texts), desc="synthesize", unit="utt"):
        save(args, speaker, one)
        seconds += len(one["waveform"]) / speaker.sample_rate
        cut += not one["ended"]
        if scores:
            score(scores, speaker, one)
    factor = speaker.seconds / max(seconds, 1e-9)
    print(f"{seconds:.1f} s of speech in {speaker.seconds:.1f} s, a real-time factor of {factor:.3f}")
    if cut:
        print(f"{cut} utterances were ended by the limit of lengths, not by the model")
    if scores:
        report(args, scores, factor)


def report(args: argparse.Namespace, scores: SynthesisScores, factor: float) -> None:
    """Print the scores; write scores.json and, with an ASR model, heard.tsv."""
    found = scores.figures() | {"real_time_factor": factor, "teacher_forcing": args.teacher_forcing, "seed": args.seed}
    if args.teacher_forcing:  # lengths are those of the recording, and all steps are computed at once
        given = ("duration_error", "duration_ratio", "ended", "real_time_factor")
        found = {name: value for name, value in found.items() if name not in given}
    write_json(args.output / "scores.json", found)
    duration = "" if args.teacher_forcing else f", error of the duration {found['duration_error']:.1%}"
    print(f"mel-cepstral distortion {found['mcd']:.2f}{duration}")
    if scores.recogniser:
        scores.write_transcripts(args.output / "heard.tsv")
        made, recorded = found["word_error_rate"], found["recorded_word_error_rate"]
        print(f"word error rate of the ASR model: {made:.1f} % synthesised, {recorded:.1f} % recorded, same vocoder")


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-synthesize``."""
    run_command(build_parser(), run, argv)
