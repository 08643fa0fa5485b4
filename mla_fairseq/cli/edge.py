"""Translate speech with an exported model, without PyTorch, while it arrives; or speak with one.

Prints each piece of the translation with the seconds of audio after which it was final. Any format that libsndfile
reads is converted if soundfile and soxr are installed; without them, wav files of 16 bits at 16 kHz are read. A
recording may be of any length: it is translated stretch by stretch. A model of text to speech writes a wav file of each
sentence. --demo needs no FOLDER and no FILE: a small model and three sentences are installed with the command.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mla_fairseq.cli.options import Help, add_detector, at_least, printable, run_command
from mla_fairseq.errors import needs
from mla_fairseq.speech.samples import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mla_fairseq.edge.runtime.model import EdgeTranslator
    from mla_fairseq.streaming.long import LongSession
    from mla_fairseq.streaming.session import Emission

DEMO = "Synthetic English speech, its German translation, and the seconds of speech after which words were final:"
SPEECH_FLAGS = ("--policy", "--number", "--beam", "--tgt-lang", "--detector")
TEXT_FLAGS = ("--output", "--speaker", "--seed")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-edge``."""
    parser = argparse.ArgumentParser(prog="mla-edge", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("folder", nargs="?", type=Path, metavar="FOLDER", help="folder that mla-export wrote")
    add("files", nargs="*", type=Path, metavar="FILE", help="audio file")
    add("--demo", action="store_true", help="translate three English sentences to German as if they were spoken now")
    add("--microphone", action="store_true", help="translate what the microphone records, until Ctrl-C")
    add("--precision", choices=("int8", "float32"), help="of the model (default: int8 where the folder has it)")
    add("--policy", metavar="NAME", help="when to read and when to emit (default: what the model was trained for)")
    add("--number", type=int, metavar="N", help="its number, such as k of wait-k (default: that of the policy)")
    add("--beam", type=at_least(1), metavar="N", help="hypotheses, at most those of mla-export --beam (default: 1)")
    add("--tgt-lang", type=printable, metavar="LANG", help="target language of a multilingual model (default: none)")
    add_detector(parser)
    add = parser.add_argument_group("text to speech").add_argument
    add("--text", nargs="+", default=[], metavar="TEXT", help="sentences to speak (phonemes: phonemizer is needed)")
    add("--symbols", nargs="+", default=[], metavar="SYMBOLS", help="sentences as symbols of the model, as 'd o g'")
    add("--output", type=Path, metavar="DIR", help="folder of the wav files (default: spoken)")
    add("--speaker", metavar="NAME", help="speaker, for a model of several (default: the only one)")
    add("--seed", type=int, metavar="N", help="seed of the pre-net's dropout, which is never off (default: 1)")
    return parser


class Cost(NamedTuple):
    """What a translation has cost: seconds of audio, and of CPU."""

    audio: float
    cpu: float

    def report(self, name: str) -> str:
        """Return a line for the user, about a recording that is not empty."""
        factor = f"real-time factor {self.cpu / self.audio:.3f}"
        return f"{name}: {self.audio:.1f} s of audio, {factor}{peak_memory()}"


def begin(args: argparse.Namespace, model: EdgeTranslator) -> LongSession:
    """Return a session of a recording.

    Raises:
        ValueError: a flag does not suit the model.
    """
    from mla_fairseq.streaming.choice import begin_long
    from mla_fairseq.streaming.detectors import named_detector

    detector = named_detector(args.detector, model.has_boundary)
    options = model.options(args.beam or 1, args.tgt_lang)
    return begin_long(model, args.policy, args.number, options, detector, longest=model.config.longest)


def translate(session: LongSession, blocks: Iterator[NDArray]) -> Cost:
    """Translate a recording, print its words as they become final, and return what that has cost."""
    samples, used = 0, 0.0
    for block in blocks:
        samples += len(block)
        used += push(session, block)
    return Cost(samples / SAMPLE_RATE, used + push(session, None))


def push(session: LongSession, block: NDArray | None) -> float:
    """Translate the next samples, ``None`` at the end, and print the new words; return the seconds of CPU."""
    started = time.process_time()
    emissions = session.finish() if block is None else session.push(block)
    used = time.process_time() - started
    for emission in emissions:
        if emission.text:
            print(line(emission), flush=True)
    return used


def line(emission: Emission) -> str:
    """Return a line with the time at which words became final, in seconds, and the words."""
    return f"{emission.milliseconds / 1000:8.2f}  {emission.text}"


def peak_memory() -> str:
    """Return the most memory that this process had so far, for a report; empty where the system does not report it."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return ""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes or KiB
    return f", peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20:.0f} MiB"


def speak_texts(args: argparse.Namespace) -> None:
    """Load a model of text to speech and speak the texts.

    Raises:
        ValueError: a flag or the folder is wrong, or the model cannot speak a text.
    """
    from mla_fairseq.edge.runtime.speaker import EdgeSpeaker
    from mla_fairseq.edge.runtime.speaking import speak_all

    model = EdgeSpeaker.load(args.folder, args.precision)
    sentences = [model.split(text) for text in args.text] + [line.split() for line in args.symbols]
    speak_all(model, sentences, args.output or Path("spoken"), args.speaker, 1 if args.seed is None else args.seed)


def check_sources(args: argparse.Namespace) -> None:
    """Check that the command line names one model and one source of speech or text.

    Raises:
        ValueError: it does not.
    """
    flags = {"--microphone": args.microphone, "--text": args.text, "--symbols": args.symbols}
    given = [name for name, value in flags.items() if value]
    if args.demo:
        if extra := [*filter(None, [args.folder]), *args.files, *given]:
            names = ", ".join(map(str, extra))
            raise ValueError(f"--demo has its own model and speech, but more is given ({names}): remove it, or --demo")
    elif args.folder is None:
        raise ValueError("no model is given: name a FOLDER that mla-export wrote, or try --demo")
    elif args.folder.is_file():
        raise ValueError(f"{args.folder} is a file, not a folder: name the folder of mla-export first")
    else:
        _check_one_source(args)


def _check_one_source(args: argparse.Namespace) -> None:
    texts, flag = args.text + args.symbols, "--text" if args.text else "--symbols"
    sources = {"audio files": args.files, "--microphone": args.microphone, flag: texts}
    given = [name for name, value in sources.items() if value]
    if not given:
        raise ValueError("no speech or text is given: name audio files, or give --microphone, --text or --symbols")
    if len(given) > 1:
        names = ", ".join(map(str, args.files + texts))
        raise ValueError(f"both {given[0]} and {given[1]} are given ({names}): remove one")


def check_flags(args: argparse.Namespace) -> None:
    """Check that each flag does something.

    Raises:
        ValueError: one is of the translation of speech, but text is spoken, or the other way round.
    """
    idle, use = (SPEECH_FLAGS, "translates speech") if args.text or args.symbols else (TEXT_FLAGS, "speaks text")
    for flag in idle:
        if (value := getattr(args, flag.strip("-").replace("-", "_"))) is not None:
            raise ValueError(f"{flag} is given ({value}), but it is for a model that {use}: remove it")


def translate_demo(args: argparse.Namespace) -> None:
    """Translate the sentences of the demo.

    Raises:
        ValueError: a flag does not suit its model, or a file is not the one that was installed.
    """
    from mla_fairseq.edge.runtime.audio import read_blocks
    from mla_fairseq.edge.runtime.demo import FOLDER, NUMBER, as_spoken, sentences
    from mla_fairseq.edge.runtime.model import EdgeTranslator

    if (args.policy, args.number) == (None, None):
        args.number = NUMBER
    session = begin(args, EdgeTranslator.load(FOLDER, args.precision))
    fresh, costs = session.snapshot(), []
    print(DEMO, flush=True)
    for sentence in sentences():
        print(sentence.source, flush=True)
        session.restore(fresh)
        costs.append(translate(session, as_spoken(read_blocks(sentence.path))))
    print(Cost(*map(sum, zip(*costs, strict=True))).report("demo"))


def translate_all(args: argparse.Namespace) -> None:
    """Load the model, and translate the microphone or files.

    Raises:
        ValueError: a flag or the folder is wrong.
        SystemExit: a file could not be translated.
    """
    from mla_fairseq.edge.runtime.audio import read_blocks, record
    from mla_fairseq.edge.runtime.model import EdgeTranslator

    session, failed = begin(args, EdgeTranslator.load(args.folder, args.precision)), False
    if args.microphone:
        print("speak; Ctrl-C ends the recording", file=sys.stderr)
        report("microphone", translate(session, record()))
    fresh = session.snapshot()
    for path in args.files:
        print(f"{path}:", flush=True)
        session.restore(fresh)
        try:
            report(str(path), translate(session, read_blocks(path)))
        except ValueError as error:
            failed = True
            print(f"error: {error}", file=sys.stderr)
    if failed:
        raise SystemExit(1)


def report(name: str, cost: Cost) -> None:
    """Print what a recording has cost, if it has samples."""
    if cost.audio:
        print(cost.report(name), file=sys.stderr)


def run(args: argparse.Namespace) -> None:
    """Translate files, the microphone or the demo, or speak texts.

    Raises:
        ValueError: a flag or the folder is wrong or does nothing, or not one source of audio or text is given.
        UserError: onnxruntime is not installed.
        SystemExit: a file could not be translated.
    """
    check_sources(args)
    check_flags(args)
    with needs("export"):
        from mla_fairseq.edge.runtime import graph  # noqa: F401
    if args.demo:
        translate_demo(args)
    else:
        (speak_texts if args.text or args.symbols else translate_all)(args)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-edge``."""
    run_command(build_parser(), run, argv)
