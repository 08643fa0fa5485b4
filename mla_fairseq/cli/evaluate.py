"""Scores simultaneous translations from SimulEval's logs: quality, and latency with and without computing time.

Prints a markdown table with a row for each log. Can draw read/write timelines and print live transcripts of sentences.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import soundfile
from sacrebleu.metrics import BLEU

from mla_fairseq.errors import needs, user_errors
from mla_fairseq.evaluation.instances import UNITS, Instance, find_log, read_instances
from mla_fairseq.evaluation.quality_latency import write_points
from mla_fairseq.evaluation.simultaneous import render, score_instances, write_scores
from mla_fairseq.evaluation.timeline import Waveform, draw_timeline
from mla_fairseq.evaluation.transcript import transcript

logger = logging.getLogger("mla_fairseq")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mla-evaluate", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("logs", type=Path, nargs="+", metavar="LOG", help="instances.log, or the folder that holds it")
    parser.add_argument("--output", type=Path, help="JSON file for the scores")
    parser.add_argument(
        "--tokenize", default="13a", choices=BLEU.TOKENIZERS, metavar="NAME", help="sacrebleu's tokeniser for BLEU"
    )
    parser.add_argument("--lowercase", action="store_true", help="BLEU and chrF without case")
    parser.add_argument(
        "--latency-unit", default="word", choices=UNITS, help="what SimulEval's --eval-latency-unit was"
    )
    parser.add_argument(
        "--first", type=int, metavar="N", help="only the first N sentences, to compare with a run of so many"
    )
    parser.add_argument("--points", type=Path, help="table for mla-plot: each log is a point, named after its folder")
    parser.add_argument("--system", default="", metavar="NAME", help="whose points they are (needed with --points)")
    parser.add_argument("--timeline", type=int, nargs="+", default=[], metavar="INDEX", help="sentences to draw")
    parser.add_argument("--pictures", type=Path, default=Path("pictures"), help="folder for the timelines")
    parser.add_argument("--no-waveform", action="store_true", help="timelines without the audio that the log names")
    parser.add_argument("--transcript", type=int, nargs="+", default=[], metavar="INDEX", help="sentences to print")
    return parser


def name_logs(paths: list[Path]) -> dict[str, Path]:
    """A short name for each log: its folder's, or the path where folders share a name.

    Raises:
        ValueError: a log is missing, or named twice.
    """
    logs = [find_log(path) for path in paths]
    if len({log.resolve() for log in logs}) < len(logs):
        raise ValueError("a log is named twice; name each once.")
    names = [log.resolve().parent.name for log in logs]
    unique = len(set(names)) == len(names)
    return dict(zip(names if unique else map(str, logs), logs, strict=True))


def pick(instances: list[Instance], index: int, name: str) -> Instance:
    """One sentence by its index.

    Raises:
        ValueError: the log does not have it.
    """
    for instance in instances:
        if instance.index == index:
            return instance
    known = f"{instances[0].index} to {instances[-1].index}"
    raise ValueError(f"{name} has no sentence {index}; its {len(instances)} sentences lie in {known}.")


def read_waveform(instance: Instance) -> Waveform | None:
    """The audio that the log names; None where it cannot be read here."""
    path = instance.source[0] if instance.source else ""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError, TypeError):
        logger.warning("sentence %d is drawn without its waveform: cannot read %s", instance.index, path or "its audio")
        return None
    return Waveform(samples.mean(axis=1), rate)


def draw(args: argparse.Namespace, name: str, instance: Instance) -> None:
    waveform = None if args.no_waveform else read_waveform(instance)
    stem = args.pictures / f"{name.replace('/', '-')}-{instance.index}"
    with needs("plots"):
        pictures = draw_timeline(instance, stem, waveform)
    print("\n".join(map(str, pictures)))


def show(args: argparse.Namespace, name: str, instance: Instance) -> None:
    print(f"{name}, sentence {instance.index}\n\n{transcript(instance)}\nreference: {instance.reference}\n")


def run(args: argparse.Namespace) -> None:
    if args.points and not args.system:
        raise ValueError("--points needs --system NAME: whose points they are.")
    if args.first is not None and args.first < 1:
        raise ValueError(f"--first must be at least 1 sentence, but is {args.first}.")
    logs = {
        name: [one for one in read_instances(path, args.latency_unit) if args.first is None or one.index < args.first]
        for name, path in name_logs(args.logs).items()
    }
    wishes: list[tuple[Callable, list[int]]] = [(show, args.transcript), (draw, args.timeline)]
    # all are looked up before anything is scored, drawn or written
    tasks = [
        (task, name, pick(logs[name], index, name)) for task, indices in wishes for name in logs for index in indices
    ]
    scores = {
        name: score_instances(instances, args.tokenize, args.lowercase, args.latency_unit)
        for name, instances in logs.items()
    }
    print(render(scores))
    if args.output:
        write_scores(args.output, scores)
    if args.points:
        rows = [{"system": args.system, "setting": name, **asdict(score)} for name, score in scores.items()]
        write_points(args.points, rows)
    for task, name, instance in tasks:
        task(args, name, instance)


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    with user_errors(kinds=(ValueError, OSError)):
        run(args)
