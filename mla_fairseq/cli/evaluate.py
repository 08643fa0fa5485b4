"""Score simultaneous translations from SimulEval's logs: quality, and latency with and without computing time.

Prints a markdown table with a row for each log. Can draw read/write timelines and print live transcripts of sentences.

With --long-form, a log has whole recordings, which OmniSTEval (extra long-form) aligns with the references:

    mla-evaluate --long-form SPLIT.segments.yaml --references SPLIT.segments.TARGET LOG
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mla_fairseq.cli.options import Help, add_quality, run_command
from mla_fairseq.errors import needs, user_errors
from mla_fairseq.evaluation.instances import UNITS, Instance, read_instances
from mla_fairseq.evaluation.long_form import ELAPSED, score_recordings
from mla_fairseq.evaluation.long_form import render as render_long_form
from mla_fairseq.evaluation.positions import draw_positions
from mla_fairseq.evaluation.quality_latency import write_points
from mla_fairseq.evaluation.segmentation import read_segmentation
from mla_fairseq.evaluation.selection import find_sentence, name_logs, read_waveform
from mla_fairseq.evaluation.simultaneous import render, score_instances, write_scores
from mla_fairseq.evaluation.timeline import draw_timeline
from mla_fairseq.evaluation.transcript import transcript


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-evaluate``."""
    parser = argparse.ArgumentParser(prog="mla-evaluate", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("logs", type=Path, nargs="+", metavar="LOG", help="instances.log, or its folder")
    add("--output", type=Path, help="JSON file for the scores")
    add_quality(parser)
    add("--latency-unit", default="word", choices=UNITS, help="unit of a delay: SimulEval's --eval-latency-unit")
    add("--first", type=int, metavar="N", help="number of sentences to score, from the first (default: all)")
    add("--points", type=Path, help="table for mla-plot: a point for each log, named after its folder")
    add("--system", metavar="NAME", help="system of those points (needed with --points)")
    add("--timeline", type=int, nargs="+", default=[], metavar="INDEX", help="indices of sentences to draw")
    add("--pictures", type=Path, default=Path("pictures"), help="folder for the timelines")
    add("--no-waveform", action="store_true", help="timelines without the audio that the log names")
    add("--transcript", type=int, nargs="+", default=[], metavar="INDEX", help="indices of sentences to print")
    add("--long-form", type=Path, metavar="YAML", help="wav, offset and duration of all segments of whole recordings")
    add("--references", type=Path, metavar="FILE", help="a line for each of these segments (needed with --long-form)")
    add("--elapsed", choices=ELAPSED, help="the elapsed times of long recordings: sums of SimulEval, or a clock's")
    add(
        "--positions", type=Path, metavar="STEM", help="picture of quality and latency along long recordings, no suffix"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Score, and draw and print what was asked for.

    Raises:
        ValueError, OSError: flags or files are wrong.
    """
    check(args)
    logs = {name: read_first(path, args) for name, path in name_logs(args.logs).items()}
    # all sentences are looked up before anything is scored, drawn or written
    printed = [(name, find_sentence(logs[name], index, name)) for name in logs for index in args.transcript]
    drawn = [(name, find_sentence(logs[name], index, name)) for name in logs for index in args.timeline]
    scores = score_long_form(args, logs) if args.long_form else score_sentences(args, logs)
    if args.output:
        write_scores(args.output, scores)
    if args.points:
        write_points(
            args.points, [{"system": args.system, "setting": name, **asdict(one)} for name, one in scores.items()]
        )
    for name, instance in printed:
        print(f"{name}, sentence {instance.index}\n\n{transcript(instance)}\nreference: {instance.reference}\n")
    for name, instance in drawn:
        draw(args, name, instance)


def check(args: argparse.Namespace) -> None:
    """Check that the flags fit each other.

    Raises:
        ValueError: a flag that needs another one, or has no effect.
    """
    if args.points and not args.system:
        raise ValueError("--points needs the name of the system: add --system NAME")
    if args.first is not None and args.first < 1:
        raise ValueError(f"--first is {args.first}: give at least 1 sentence")
    if args.long_form and not args.references:
        raise ValueError("--long-form needs the references of its segments: add --references FILE")
    if args.long_form and args.first:
        raise ValueError("--first has no effect with --long-form: remove it, or shorten the segmentation")
    given = [f"--{name}" for name in ("references", "elapsed", "positions") if getattr(args, name)]
    if given and not args.long_form:
        raise ValueError(f"{given[0]} has no effect without --long-form: give both")


def score_sentences(args: argparse.Namespace, logs: dict[str, list[Instance]]) -> dict[str, Any]:
    """Print and return the scores of logs of sentences."""
    quality = (args.tokenize, args.lowercase, args.latency_unit)
    scores = {name: score_instances(instances, *quality) for name, instances in logs.items()}
    print(render(scores))
    return scores


def score_long_form(args: argparse.Namespace, logs: dict[str, list[Instance]]) -> dict[str, Any]:
    """Print and return the scores of logs of whole recordings, and draw them if asked for."""
    segments = read_segmentation(args.long_form, args.references)
    quality = (args.tokenize, args.lowercase, args.latency_unit, args.elapsed or ELAPSED[0])
    scores, aligned = {}, {}
    for name, instances in logs.items():
        with user_errors(f"{name}: "):
            scores[name], aligned[name] = score_recordings(instances, segments, *quality)
    print(render_long_form(scores))
    if args.positions:
        with needs("plots"):
            print("\n".join(map(str, draw_positions(aligned, args.positions))))
    return scores


def read_first(path: Path, args: argparse.Namespace) -> list[Instance]:
    """Return the sentences of a log, up to ``--first``."""
    instances = read_instances(path, args.latency_unit)
    return [one for one in instances if args.first is None or one.index < args.first]


def draw(args: argparse.Namespace, name: str, instance: Instance) -> None:
    """Draw the timeline of a sentence, and print the paths of the pictures."""
    waveform = None if args.no_waveform else read_waveform(instance)
    with needs("plots"):
        stem = args.pictures / f"{name.replace('/', '-')}-{instance.index}"
        print("\n".join(map(str, draw_timeline(instance, stem, waveform))))


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-evaluate``."""
    run_command(build_parser(), run, argv)
