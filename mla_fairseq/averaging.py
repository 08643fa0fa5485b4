"""Average several fairseq checkpoints of one training."""

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
_SAME = "average checkpoints of one training"
_DRAWN = (".mechanism.directions", ".mechanism.features.directions")  # the second: version 0.1


def last_checkpoints(folder: Path, count: int) -> list[Path]:
    """Return the newest ``count`` checkpoints of a training, newest first; fewer if there are fewer.

    Numbered ones are ``checkpoint_EPOCH_UPDATES.pt``, or else ``checkpointEPOCH.pt``. ``checkpoint_last.pt`` is one of
    them if its update has no numbered file.

    Raises:
        ValueError: the folder has no checkpoint.
    """
    by_updates = sorted(folder.glob("checkpoint_*_*.pt"), key=_number, reverse=True)
    numbered = by_updates or sorted(folder.glob("checkpoint[0-9]*.pt"), key=_number, reverse=True)
    last = folder / _LAST  # fairseq writes no numbered file for an update that ends an epoch
    if last.is_file() and (not numbered or (by_updates and _updates(last) > _number(numbered[0]))):
        numbered.insert(0, last)
    if not numbered:
        raise ValueError(f"no checkpoint in {folder}: train first")
    return numbered[:count]


def _number(path: Path) -> int:
    match = _NUMBERED.match(path.name)
    return int(match.group(1)) if match else -1


def _updates(path: Path) -> int:
    history = load_checkpoint(path).get("optimizer_history") or [{}]
    return int(history[-1].get("num_updates", -1))


def average_checkpoints(paths: Sequence[Path]) -> dict[str, Any]:
    """Return the first checkpoint with every weight replaced by the mean.

    The mean is summed in float64 and stored in the type of the weight. The optimizer's state is left out: it belongs to
    one checkpoint. The random directions of Performer are those of the first checkpoint: they may have been drawn again
    between two checkpoints, and directions do not average.

    Raises:
        ValueError: no path, or the weights of two checkpoints differ in name or shape.
    """
    if not paths:
        raise ValueError("no checkpoint to average: give at least one")
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
    """Return the mean in a weight's type; integers are rounded, so that equal counters keep their value."""
    return mean.to(dtype) if dtype.is_floating_point else mean.round().to(dtype)


def _require_same(first: dict[str, torch.Tensor], other: dict[str, torch.Tensor], first_path: Path, path: Path) -> None:
    """Check that two checkpoints have weights of the same names and shapes."""
    if odd := sorted(first.keys() ^ other.keys()):
        raise ValueError(f"{first_path} and {path} are of different models (only one has '{odd[0]}'): {_SAME}")
    for name, weight in first.items():
        if weight.shape != other[name].shape:
            shapes = f"{tuple(weight.shape)} and {tuple(other[name].shape)}"
            raise ValueError(f"{first_path} and {path} are of different models ('{name}' has shapes {shapes}): {_SAME}")


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint under a temporary name first, so that a killed run leaves no half of one.

    Raises:
        ValueError: the file cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.save(state, partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # torch raises a RuntimeError for a file that cannot be opened
        reason = str(error).partition("\n")[0]
        raise ValueError(f"cannot write {path} ({reason}): choose another --output") from error
