"""Translate a test set by wait-k for several k, in batches, and draw quality against latency.

Each k is one fairseq-generate --simul-waitk-lagging K, which emits what the agent would; a finished k is not translated
again. One more run reads the whole source first, to show how much quality wait-k costs. Writes points.tsv,
quality-latency.png and .svg, scores.json, and a folder with instances.log for each k.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from mla_fairseq.cli.options import Help, add_picture, add_quality, add_user_dir, at_least, run_command
from mla_fairseq.evaluation.instances import read_instances
from mla_fairseq.evaluation.simultaneous import SimultaneousScores, render, write_scores
from mla_fairseq.evaluation.sweeps import WaitKSweep, write_sweep
from mla_fairseq.evaluation.timeline import draw_timeline
from mla_fairseq.evaluation.transcript import transcript

LIMIT = "most tokens of a translation: a * frames (10 ms) + b; this is {}"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-sweep``."""
    parser = argparse.ArgumentParser(prog="mla-sweep", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("data", type=Path, help="prepared data folder")
    add("--path", type=Path, required=True, help="checkpoint of a simultaneous model")
    add_picture(parser)
    add_user_dir(parser)
    add(
        "--laggings",
        type=parse_laggings,
        default="1,3,5,7,9",
        metavar="K,K,..",
        help="values of k, separated by commas",
    )
    add("--config-yaml", default="config_st.yaml", help="data configuration in the data folder")
    add("--subset", default="tst-COMMON_st", help="manifest to translate, without .tsv")
    add("--segment-size", type=int, default=280, help="audio that arrives at once, in ms")
    add("--max-len-a", type=float, default=0.1, help=LIMIT.format("a"))
    add("--max-len-b", type=int, default=20, help=LIMIT.format("b"))
    add("--max-tokens", type=int, default=50_000, help="most frames in a batch")
    middle = "indices of sentences whose timeline is drawn and whose transcript is printed, at the middle k"
    add("--timelines", type=int, nargs="*", default=[0, 1, 2], metavar="I", help=middle)
    add_quality(parser)
    add("--cpu", action="store_true", help="no use of a GPU")
    return parser


def parse_laggings(text: str) -> list[int]:
    """Return the values of k, rising, as the type of a flag.

    Raises:
        ArgumentTypeError: one of them is not a number of at least 1.
    """
    return sorted(set(map(at_least(1), text.split(","))))


def run(args: argparse.Namespace) -> None:
    """Translate, score, draw and report.

    Raises:
        ValueError: flags, files or a translation are wrong.
    """
    sweep = WaitKSweep(**{field.name: getattr(args, field.name) for field in fields(WaitKSweep)})
    laggings: list[int] = args.laggings
    scores: dict[str, SimultaneousScores] = {}
    for k in tqdm(laggings, desc="wait-k", unit="k"):
        scores[str(k)] = sweep.score(k)
    bleu = sweep.offline_bleu()
    named = {f"k = {k}": score for k, score in scores.items()}
    write_scores(args.output / "scores.json", named)
    print(render(named))
    print(f"whole source, beam 1: BLEU {bleu:.2f}\n")
    picture = write_sweep(args.output, "k", scores, args.system, args.title, bleu)
    show(args, sweep, laggings[len(laggings) // 2], bool(picture))
    if picture:
        print(f"quality against latency: {picture}")


def show(args: argparse.Namespace, sweep: WaitKSweep, k: int, pictures: bool) -> None:
    """Print transcripts of some sentences at this k, and draw their timelines if there are pictures."""
    instances = {instance.index: instance for instance in read_instances(sweep.log(k))}
    for index in args.timelines:
        if index not in instances:
            print(f"no sentence {index} to draw: give an index from {min(instances)} to {max(instances)}")
        elif instances[index].units:
            print(f"Sentence {index} as it appears, k = {k} (reference: {instances[index].reference!r}):")
            print(f"\n{transcript(instances[index])}")
            if pictures:
                draw_timeline(instances[index], args.output / f"timeline-{index}-k{k}", title=f"wait-{k}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-sweep``."""
    run_command(build_parser(), run, argv, continues=True)
