"""Translate a test set by an agent under SimulEval for several values of one option; draw quality against latency.

Each value is one run of simuleval; a finished one is not run again. The words after -- are passed to simuleval: model,
lists, segment size, --user-dir of your package. Writes points.tsv, quality-latency.png and .svg, scores.json, and
a folder with instances.log for each value.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tqdm import tqdm

from mla_fairseq.cli.options import Help, add_picture, add_quality, run_command
from mla_fairseq.errors import needs
from mla_fairseq.evaluation.simultaneous import SimultaneousScores, render, score_log, write_scores
from mla_fairseq.evaluation.sweeps import simulate, write_sweep
from mla_fairseq.files import inside

# named here, not imported, so that --help works without the extra simul
AGENTS = [
    "AlignAttAgent",
    "EDAttAgent",
    "HoldAgent",
    "LocalAgreementAgent",
    "MonotonicAgent",
    "OfflineWaitKAgent",
    "WaitKAgent",
]
EXAMPLE = (
    "example: mla-sweep-agent --agent AlignAttAgent --option frame-num --values 2,4,8 --output sweep -- "
    "--model-path CKPT --data-bin DATA --source LIST --target LIST --source-segment-size 280"
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-sweep-agent``."""
    parser = argparse.ArgumentParser(prog="mla-sweep-agent", description=__doc__, formatter_class=Help, epilog=EXAMPLE)
    add = parser.add_argument
    add("--agent", required=True, choices=AGENTS, metavar="NAME", help=f"agent: {', '.join(AGENTS)}")
    add_picture(parser)
    add("--option", help="option to vary, without its dashes, such as frame-num or waitk-lagging")
    add("--values", help="values of the option, separated by commas")
    add_quality(parser)
    add("simuleval", nargs="+", metavar="-- FLAGS", help="flags of simuleval and of the agent")
    return parser


def settings(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the flags of each value; without an option, those of a single run.

    Raises:
        ValueError: an option without values, or values without an option.
    """
    if (args.option is None) != (args.values is None):
        raise ValueError("--option and --values belong together: give both, or neither for a single run")
    if args.option is None:
        return {"-": []}
    option = "--" + args.option.lstrip("-").replace("_", "-")
    return {value.strip(): [option, value.strip()] for value in args.values.split(",")}


def run(args: argparse.Namespace) -> None:
    """Translate, score, draw and report.

    Raises:
        ValueError: flags, files or a translation are wrong.
    """
    with needs("simul"):
        import mla_fairseq.agents  # noqa: F401 -- before the work begins
    scores: dict[str, SimultaneousScores] = {}
    for value, flags in tqdm(settings(args).items(), desc=args.agent, unit="run"):
        log = simulate(args.agent, [*args.simuleval, *flags], inside(args.output, value, "--values"))
        scores[value] = score_log(log, args.tokenize, args.lowercase)
    named = {f"{args.option} = {value}" if args.option else args.agent: score for value, score in scores.items()}
    write_scores(args.output / "scores.json", named)
    print(render(named))
    picture = write_sweep(args.output, "setting", scores, args.system, args.title)
    if picture:
        print(f"quality against latency: {picture}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-sweep-agent``."""
    run_command(build_parser(), run, argv, continues=True)
