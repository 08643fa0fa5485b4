"""Progress bars made from the lines that fairseq's programs write."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from tqdm import tqdm

from mla_fairseq.evaluation.training_log import parse_line
from mla_fairseq.recipes.commands import Paths

Watch = AbstractContextManager[Callable[[str], None]]


def _bar(paths: Paths, verb: str, total: int | None, unit: str) -> tqdm:
    """Redrawn often on a terminal, twice a minute into a file."""
    interval = 0.2 if sys.stderr.isatty() else 30.0
    return tqdm(total=total, unit=unit, desc=f"{verb} {paths.recipe.name}", mininterval=interval)


@contextlib.contextmanager
def silent() -> Iterator[Callable[[str], None]]:
    """Shows nothing."""
    yield lambda line: None


@contextlib.contextmanager
def training(paths: Paths) -> Iterator[Callable[[str], None]]:
    """One bar over the updates, with the losses (bits per target token)."""
    valid = paths.subset(paths.recipe.data.valid)
    shown: dict[str, str] = {}
    with _bar(paths, "train", paths.recipe.train.max_update, "update") as bar:

        def on_line(line: str) -> None:
            parsed = parse_line(line)
            if parsed is None or isinstance(parsed[2], str):
                return
            _, tag, stats = parsed
            if tag == "train_inner":
                shown["loss"] = stats.get("nll_loss", stats["loss"])
                bar.update(int(stats["num_updates"]) - bar.n)
            elif tag == valid:
                shown["valid loss"] = stats.get(f"{tag}_nll_loss", stats[f"{tag}_loss"])
            bar.set_postfix(shown, refresh=tag == valid)

        yield on_line


@contextlib.contextmanager
def decoding(paths: Paths) -> Iterator[Callable[[str], None]]:
    """One bar over the sentences; without a total where the manifest cannot tell it."""
    manifest = paths.manifest(paths.recipe.decode.subset)
    total = None
    if manifest.is_file():
        with open(manifest, encoding="utf-8") as stream:
            total = sum(1 for _ in stream) - 1
    with _bar(paths, "decode", total, "sentence") as bar:
        yield lambda line: bar.update() if line.startswith("D-") else None
