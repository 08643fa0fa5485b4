"""Translates a test set by an agent under SimulEval, for several values of one option; draws quality against latency.

Each value is one run of ``simuleval``; a finished one is not done again. What follows ``--`` is given to SimulEval as
it stands: the model, the lists, the segment size. Writes points.tsv, quality-latency.png and .svg, scores.json, and for
each value a folder with its instances.log.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sacrebleu.metrics import BLEU
from tqdm import tqdm

from mla_fairseq import agents
from mla_fairseq.errors import user_errors
from mla_fairseq.evaluation.instances import LOG_NAME
from mla_fairseq.evaluation.quality_latency import draw_quality_latency, write_points
from mla_fairseq.evaluation.simultaneous import SimultaneousScores, render, score_log, write_scores
from mla_fairseq.files import write_text

SIMULEVAL = Path(sys.executable).with_name("simuleval")
AGENTS = [name for name in agents.__all__ if name != "StreamingAgent"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mla-sweep-agent",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="example: mla-sweep-agent --agent AlignAttAgent --option frame-num --values 2,4,8 --output sweep -- "
        "--model-path CKPT --data-bin DATA --source LIST --target LIST --source-segment-size 280",
    )
    parser.add_argument("--agent", required=True, choices=AGENTS, metavar="NAME", help=f"of {', '.join(AGENTS)}")
    parser.add_argument("--output", type=Path, required=True, help="folder for logs, table and pictures")
    parser.add_argument("--option", help="option to vary, without its dashes, such as frame-num or waitk-lagging")
    parser.add_argument("--values", help="its values, with commas between")
    parser.add_argument("--system", default="", help="name in table and picture; default: the output folder's")
    parser.add_argument("--title", default="", help="written above the picture")
    parser.add_argument(
        "--tokenize", default="13a", choices=BLEU.TOKENIZERS, metavar="NAME", help="sacrebleu's tokeniser for BLEU"
    )
    parser.add_argument("--lowercase", action="store_true", help="BLEU and chrF without case")
    parser.add_argument("simuleval", nargs="+", metavar="-- FLAGS", help="flags of simuleval and of the agent")
    return parser


def settings(args: argparse.Namespace) -> dict[str, list[str]]:
    """Flags by value; without an option a single run.

    Raises:
        ValueError: an option without values, or values without an option.
    """
    if (args.option is None) != (args.values is None):
        raise ValueError("--option and --values belong together: give both, or none for a single run")
    if args.option is None:
        return {"-": []}
    option = "--" + args.option.lstrip("-").replace("_", "-")
    return {value.strip(): [option, value.strip()] for value in args.values.split(",")}


def simulate(args: argparse.Namespace, folder: Path, flags: list[str]) -> Path:
    """Run SimulEval once, unless that was done; its log.

    Raises:
        ValueError: it failed.
    """
    command = ["simuleval", "--agent-class", f"mla_fairseq.agents.{args.agent}", *args.simuleval, *flags]
    log, stamp = folder / LOG_NAME, folder / "made-by"
    made_by = shlex.join(command) + "\n"
    if log.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == made_by:
        return log
    folder.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    with (folder / "simuleval.log").open("w") as stream:
        done = subprocess.run([SIMULEVAL, *command[1:], "--output", folder], stdout=stream, stderr=stream)
    if done.returncode:
        last = (folder / "simuleval.log").read_text(encoding="utf-8").strip().rpartition("\n")[2]
        raise ValueError(f"{last.removeprefix('error: ')} (`{shlex.join(command)}`, see {folder / 'simuleval.log'})")
    write_text(stamp, made_by)
    return log


def run(args: argparse.Namespace) -> None:
    scores: dict[str, SimultaneousScores] = {}
    for value, flags in tqdm(settings(args).items(), desc=args.agent, unit="run"):
        log = simulate(args, args.output / value, flags)
        scores[value] = score_log(log, args.tokenize, args.lowercase)
    system = args.system or args.output.resolve().name
    rows = [{"system": system, "setting": value, **asdict(score)} for value, score in scores.items()]
    write_points(args.output / "points.tsv", rows)
    named = {f"{args.option} = {value}" if args.option else args.agent: score for value, score in scores.items()}
    write_scores(args.output / "scores.json", named)
    print(render(named))
    curve, _ = draw_quality_latency(args.output / "points.tsv", args.output / "quality-latency", title=args.title)
    print(f"quality against latency: {curve}")


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    with user_errors():
        run(args)
