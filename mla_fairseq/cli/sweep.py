"""Translates a test set by wait-k for several k, in batches, and draws quality against latency.

Each k is one ``fairseq-generate --simul-waitk-lagging K``, which writes what the agent would; a finished k is not done
again. One more run reads the whole source first: what the model gives up. Writes points.tsv, quality-latency.png and
.svg, scores.json, and for each k a folder with its instances.log.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sacrebleu.metrics import BLEU
from tqdm import tqdm

from mla_fairseq.errors import user_errors
from mla_fairseq.evaluation import offline
from mla_fairseq.evaluation.instances import LOG_NAME, read_instances
from mla_fairseq.evaluation.quality_latency import OFFLINE, draw_quality_latency, write_points
from mla_fairseq.evaluation.simultaneous import SimultaneousScores, render, score_log, write_scores
from mla_fairseq.evaluation.timeline import draw_timeline
from mla_fairseq.evaluation.transcript import transcript

GENERATE = Path(sys.executable).with_name("fairseq-generate")
USER_DIR = Path(__file__).resolve().parents[1]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mla-sweep", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("data", type=Path, help="prepared data folder")
    parser.add_argument("--path", type=Path, required=True, help="checkpoint of a simultaneous model")
    parser.add_argument("--output", type=Path, required=True, help="folder for logs, table and pictures")
    parser.add_argument("--laggings", default="1,3,5,7,9", metavar="K,K,..", help="the k of wait-k to decode with")
    parser.add_argument("--config-yaml", default="config_st.yaml", help="data configuration in the data folder")
    parser.add_argument("--subset", default="tst-COMMON_st", help="manifest to translate, without .tsv")
    parser.add_argument("--segment-size", type=int, default=280, help="audio that comes at once, in ms")
    parser.add_argument("--max-len-a", type=float, default=0.1, help="at most a * frames + b tokens")
    parser.add_argument("--max-len-b", type=int, default=20, help="at most a * frames + b tokens")
    parser.add_argument("--max-tokens", type=int, default=50_000, help="most frames in a batch")
    parser.add_argument("--system", default="", help="name in table and picture; default: the output folder's")
    parser.add_argument("--title", default="", help="written above the picture")
    parser.add_argument(
        "--timelines",
        type=int,
        nargs="*",
        default=[0, 1, 2],
        metavar="I",
        help="sentences to draw and to print, at the middle k",
    )
    parser.add_argument(
        "--tokenize", default="13a", choices=BLEU.TOKENIZERS, metavar="NAME", help="sacrebleu's tokeniser for BLEU"
    )
    parser.add_argument("--lowercase", action="store_true", help="BLEU and chrF without case")
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    return parser


def parse_laggings(text: str) -> list[int]:
    """The k that were asked for, rising.

    Raises:
        ValueError: something that is no number from 1 on.
    """
    try:
        laggings = sorted({int(word) for word in text.split(",")})
    except ValueError:
        laggings = [0]
    if laggings[0] < 1:
        raise ValueError(f"--laggings must be numbers from 1 on with commas between, such as 1,3,5, but is {text!r}.")
    return laggings


def generate(args: argparse.Namespace, folder: Path, flags: list[str]) -> Path:
    """Translate the set once, unless that was done; the output of ``fairseq-generate``.

    Raises:
        ValueError: it failed, or there is no such checkpoint.
    """
    if not args.path.is_file():
        raise ValueError(f"no checkpoint {args.path}: check --path.")
    out, stamp = folder / "generate.txt", folder / "made-by"
    folder.mkdir(parents=True, exist_ok=True)
    task = [str(args.data), "--user-dir", os.path.relpath(USER_DIR), "--task", "speech_to_text_mla"]
    task += ["--config-yaml", args.config_yaml, "--gen-subset", args.subset, "--path", str(args.path), "--beam", "1"]
    limits = ["--max-len-a", str(args.max_len_a), "--max-len-b", str(args.max_len_b)]
    limits += ["--max-tokens", str(args.max_tokens), *(["--cpu"] if args.cpu else [])]
    command = ["fairseq-generate", *task, *limits, *flags]
    read = [args.path, args.data / f"{args.subset}.tsv", args.data / args.config_yaml, *sorted(args.data.glob("*.npz"))]
    times = " ".join(str(path.stat().st_mtime_ns) for path in read if path.is_file())
    made_by = f"{shlex.join(command)} # {times}\n"
    made = [out, stamp, *([folder / LOG_NAME] if "--simul-log" in flags else [])]
    if all(path.is_file() for path in made) and stamp.read_text(encoding="utf-8") == made_by:
        return out
    partial = out.with_suffix(".partial")
    with partial.open("w") as stdout, (folder / "log").open("w") as stderr:
        done = subprocess.run([str(GENERATE), *command[1:]], stdout=stdout, stderr=stderr)
    if done.returncode:
        last = (folder / "log").read_text(encoding="utf-8").strip().rpartition("\n")[2]
        raise ValueError(f"{last.removeprefix('error: ')} (`{shlex.join(command)}`, see {folder / 'log'})")
    os.replace(partial, out)
    stamp.write_text(made_by, encoding="utf-8")
    return out


def sweep(args: argparse.Namespace) -> dict[str, SimultaneousScores]:
    """Scores by k."""
    scores = {}
    for k in tqdm(parse_laggings(args.laggings), desc="wait-k", unit="k"):
        folder = args.output / f"k{k}"
        flags = ["--simul-waitk-lagging", str(k), "--simul-log", str(folder / LOG_NAME)]
        generate(args, folder, [*flags, "--simul-segment-size", str(args.segment_size)])
        scores[str(k)] = score_log(folder / LOG_NAME, args.tokenize, args.lowercase)
    return scores


def whole_source(args: argparse.Namespace) -> float:
    """BLEU of the same model, greedy as well, with the whole source."""
    generated = offline.read_generated(generate(args, args.output / "whole", []))
    references = offline.read_references(args.data / f"{args.subset}.tsv")
    return offline.score(offline.pair_up(generated, references), references, args.tokenize, args.lowercase).bleu


def show(args: argparse.Namespace, scores: dict[str, SimultaneousScores]) -> None:
    """The curve; timelines and transcripts of some sentences at the middle k."""
    k = list(scores)[len(scores) // 2]
    instances = {instance.index: instance for instance in read_instances(args.output / f"k{k}" / LOG_NAME)}
    for index in args.timelines:
        if index not in instances:
            print(f"no sentence {index} to draw: there are {min(instances)} to {max(instances)}")
        elif instances[index].units:
            print(f"Sentence {index} as it appears, k = {k}; {instances[index].reference!r} is the reference:")
            print(f"\n{transcript(instances[index])}")
            draw_timeline(instances[index], args.output / f"timeline-{index}-k{k}", title=f"wait-{k}")
    curve, _ = draw_quality_latency(args.output / "points.tsv", args.output / "quality-latency", title=args.title)
    print(f"quality against latency: {curve}")


def run(args: argparse.Namespace) -> None:
    scores, offline_bleu = sweep(args), whole_source(args)
    system = args.system or args.output.resolve().name
    rows = [{"system": system, "k": k, **asdict(score), OFFLINE: offline_bleu} for k, score in scores.items()]
    write_points(args.output / "points.tsv", rows)
    write_scores(args.output / "scores.json", {f"k = {k}": score for k, score in scores.items()})
    print(render({f"k = {k}": score for k, score in scores.items()}))
    print(f"whole source, beam 1: BLEU {offline_bleu:.2f}\n")
    show(args, scores)


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    with user_errors():
        run(args)
