"""Export a simultaneous model in float32 and int8, and compare what it emits without PyTorch with a sweep of mla-sweep.

Runs mla-export twice, translates the sentences of the test set with the exported models, and prints for each its size,
the sentences whose words are those of the sweep at the same k, BLEU, and the speed on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from examples.on_device.row import Row
from mla_fairseq.cli import export
from mla_fairseq.cli.options import Help, add_data, add_user_dir, open_pair, run_command
from mla_fairseq.data.corpus import Segment
from mla_fairseq.edge.runtime.model import EdgeTranslator
from mla_fairseq.evaluation.instances import Instance, read_instances
from mla_fairseq.evaluation.offline import score
from mla_fairseq.files import write_json
from mla_fairseq.speech import SAMPLE_RATE, read_segment
from mla_fairseq.streaming import IncrementalSession, WaitKPolicy

PRECISIONS = ("float32", "int8")
STEP = 1_920  # samples in a push: 120 ms; the words do not depend on it


def read_sweep(args: argparse.Namespace, segments: Sequence[Segment]) -> list[Instance]:
    """Return what the sweep emitted for each segment.

    Raises:
        ValueError: the sweep has no such k, or is of another test set.
    """
    folder = args.sweep / f"k{args.waitk_lagging}"
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing: run mla-sweep with --laggings {args.waitk_lagging}")
    found = read_instances(folder)
    if [one.reference for one in found] != [one.target for one in segments]:
        raise ValueError(f"{folder} is not of the split {args.split}: give another --split, or run mla-sweep again")
    return found


def write_folder(args: argparse.Namespace, precision: str) -> Path:
    """Export the model by ``mla-export``, and return the folder."""
    folder = args.output / precision
    words = [args.checkpoint, "--data", args.data_bin, "--config-yaml", args.config_yaml, "--output", folder]
    words += ["--user-dir", args.user_dir] if args.user_dir else []
    words += ["--int8"] if precision == "int8" else []
    export.run(export.build_parser().parse_args([str(word) for word in words]))
    return folder


def translate(folder: Path, segments: Sequence[Segment], lagging: int) -> tuple[list[str], float]:
    """Return the translation of each segment, and the real-time factor."""
    model, texts, used = EdgeTranslator.load(folder), [], 0.0
    for segment in tqdm(segments, desc=folder.name, unit="sentence"):
        samples = read_segment(segment.wav, segment.start, segment.length)
        started = time.process_time()
        session = IncrementalSession(model, WaitKPolicy(lagging))
        parts = [session.push(samples[start : start + STEP]) for start in range(0, len(samples), STEP)]
        texts.append(" ".join(one.text for part in [*parts, session.finish()] for one in part))
        used += time.process_time() - started
    return texts, used / (sum(one.length for one in segments) / SAMPLE_RATE)


def compare(args: argparse.Namespace) -> dict[str, Row]:
    """Export the model, and return the row of each precision."""
    segments = open_pair(args, args.pair).read(args.split)
    sweep = read_sweep(args, segments)
    expected, references = [one.prediction for one in sweep], [one.target for one in segments]
    rows = {}
    for precision in PRECISIONS:
        folder = write_folder(args, precision)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        texts, factor = translate(folder, segments, args.waitk_lagging)
        same = sum(one == other for one, other in zip(texts, expected, strict=True))
        scores = [score(each, references, args.tokenize).bleu for each in (texts, expected)]
        rows[precision] = Row(size, len(segments), same, *scores, factor)
    return rows


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m examples.on_device.compare``."""
    name = "python -m examples.on_device.compare"
    parser = argparse.ArgumentParser(name, description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("checkpoint", type=Path, help="wait-k model")
    add("--data-bin", type=Path, required=True, help="prepared folder of the model")
    add("--config-yaml", default="config_st.yaml", help="data configuration in it")
    add_user_dir(parser)
    add_data(parser)
    add("--pair", required=True, help="language pair (a folder of DATA), such as en-de")
    add("--split", default="tst-COMMON", help="split to translate")
    add("--sweep", type=Path, required=True, metavar="DIR", help="output of mla-sweep for the same split")
    add("--waitk-lagging", type=int, default=5, metavar="K", help="lag of wait-k, one of the sweep")
    add("--tokenize", default="13a", help="sacreBLEU tokenizer")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for float32/, int8/ and comparison.json")
    return parser


def run(args: argparse.Namespace) -> None:
    """Export, compare, print, and write.

    Raises:
        ValueError, OSError: files or flags are wrong.
    """
    rows = compare(args)
    for precision, row in rows.items():
        print(row.render(f"device, {precision}"))
    write_json(args.output / "comparison.json", {precision: asdict(row) for precision, row in rows.items()})


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``python -m examples.on_device.compare``."""
    run_command(build_parser(), run, argv)


if __name__ == "__main__":
    main()
