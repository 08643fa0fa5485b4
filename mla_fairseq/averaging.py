"""The mean of several fairseq checkpoints of one training."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mla_fairseq.checkpoints import load_checkpoint

_NUMBERED = re.compile(r"^checkpoint(?:_\d+)?_?(\d+)\.pt$")
_LAST = "checkpoint_last.pt"
_DRAWN = (".mechanism.directions", ".mechanism.features.directions")  # the second: version 0.1


def last_checkpoints(folder: Path, count: int) -> list[Path]:
    """The newest ``count`` checkpoints of a training, newest first; fewer where there are fewer.

    Numbered ones are ``checkpoint_EPOCH_UPDATES.pt`` (or all ``checkpointEPOCH.pt``).  fairseq writes no numbered
    file for an update that ends an epoch, so ``checkpoint_last.pt`` counts when its update has no other file.

    Raises:
        ValueError: there is none.
    """
    by_updates = sorted(folder.glob("checkpoint_*_*.pt"), key=_number, reverse=True)
    numbered = by_updates or sorted(folder.glob("checkpoint[0-9]*.pt"), key=_number, reverse=True)
    last = folder / _LAST
    if last.is_file() and (not numbered or (by_updates and _updates(last) > _number(numbered[0]))):
        numbered.insert(0, last)
    if not numbered:
        raise ValueError(f"no checkpoint in {folder}; train first.")
    return numbered[:count]


def _number(path: Path) -> int:
    match = _NUMBERED.match(path.name)
    return int(match.group(1)) if match else -1


def _updates(path: Path) -> int:
    history = load_checkpoint(path).get("optimizer_history") or [{}]
    return int(history[-1].get("num_updates", -1))


def average_checkpoints(paths: Sequence[Path]) -> dict[str, Any]:
    """The first checkpoint with every weight replaced by the mean, summed in float64, kept in its own type.

    Optimizer state is left out: it belongs to one checkpoint, not to a mean. Random directions of Performer's, which
    may have been drawn anew between two checkpoints, stay those of the first: a mean of them is none.

    Raises:
        ValueError: no path, or two checkpoints whose weights differ in name or shape.
    """
    if not paths:
        raise ValueError("no checkpoint to average.")
    result = load_checkpoint(paths[0])
    first = result["model"]
    sums = {name: weight.to(torch.float64) for name, weight in first.items()}
    for path in paths[1:]:
        weights = load_checkpoint(path)["model"]
        _require_same(first, weights, paths[0], path)
        for name, weight in weights.items():
            sums[name] += first[name] if name.endswith(_DRAWN) else weight
    result["model"] = {name: _as_type(total / len(paths), first[name].dtype) for name, total in sums.items()}
    result.pop("last_optimizer_state", None)
    return result


def _as_type(mean: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Counters are rounded, so that the mean of equal integers is that integer."""
    return mean.to(dtype) if dtype.is_floating_point else mean.round().to(dtype)


def _require_same(first: dict, other: dict, first_path: Path, path: Path) -> None:
    if odd := sorted(first.keys() ^ other.keys()):
        raise ValueError(f"{first_path} and {path} are of different models: only one of them has '{odd[0]}'.")
    for name, weight in first.items():
        if weight.shape != other[name].shape:
            shapes = f"{tuple(weight.shape)} and {tuple(other[name].shape)}"
            raise ValueError(f"{first_path} and {path} are of different models: '{name}' has shapes {shapes}.")


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes beside the place first: a killed run leaves no half checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        torch.save(state, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
