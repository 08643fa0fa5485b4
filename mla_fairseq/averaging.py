"""Average several fairseq checkpoints of one training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mla_fairseq.attention import attention_entry, available_attention
from mla_fairseq.checkpoints import (
    architecture,
    check_dense,
    check_finite,
    load_checkpoint,
    load_training,
    saved_options,
    write_checkpoint,
)
from mla_fairseq.files import real_path, replacing
from mla_fairseq.models.options import SITES, option_values, site_type

_NUMBERED = re.compile(r"^checkpoint(?:_\d+)?_?(\d+)\.pt$")
_LAST = "checkpoint_last.pt"
_SAME = "average checkpoints of one training"
_DEFINING = re.compile(
    r"attention_(heads|eps)|norm|activation_fn|chunk|simul_type|waitk|pre_decision|(source|target)_length|embedding|"
    r"learned_pos|energy_bias|mass_preservation|adaptive_(input|softmax_cutoff)|^conv_|input_(channels|feat)|"
    r"(layers|_dim|kernel_size)$|pos_enc_type|ctc_(symbols|layer|text)|frames_per_step|share_|no_cross_attention|"
    r"cross_self_attention|length_predictor"
)
"""Options of a model that may change its output; mechanisms are compared separately, and dropout changes only training.

Options that only training reads match none of these.
"""
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


def average_checkpoints(paths: Sequence[Path], ema: bool = False) -> dict[str, Any]:
    """Return the first checkpoint with every weight replaced by the mean.

    With ``ema`` the weights are those of fairseq's moving average (``--store-ema``).

    The mean is summed in float64 and stored in the type of the weight. The optimizer's state is left out: it belongs to
    one checkpoint. The random directions of Performer are those of the first checkpoint: they may have been drawn again
    between two checkpoints, and directions do not average.

    Raises:
        ValueError: no path, a file that is given twice or has no options, no moving average, weights that are not
            finite, or checkpoints of different models: their weights differ in name or shape, or they have other
            mechanisms, options or symbols.
    """
    if not paths:
        raise ValueError("no checkpoint to average: give at least one")
    files = [real_path(path) for path in paths]
    if twice := next((path for path, file in zip(paths, files, strict=True) if files.count(file) > 1), None):
        raise ValueError(f"{twice} is given more than once: give each checkpoint once")
    result = _load(paths[0], ema)
    first, described = result["model"], _describe(result)
    sums = {name: weight.to(torch.float64) for name, weight in first.items()}
    for path in paths[1:]:
        other = _load(path, ema)
        weights = other["model"]
        _require_same(first, weights, paths[0], path)
        _require_options(described, _describe(other), paths[0], path)
        for name, weight in weights.items():
            sums[name] += first[name] if name.endswith(_DRAWN) else weight
    result["model"] = {name: _as_type(total / len(paths), first[name].dtype) for name, total in sums.items()}
    result.pop("last_optimizer_state", None)
    return result


def _load(path: Path, ema: bool) -> dict[str, Any]:
    state, _ = load_training(path)
    if not state["model"]:
        raise ValueError(f"{path} has no weights: give a checkpoint that fairseq-train saved")
    moving = (state.get("extra_state") or {}).pop("ema", None)
    if ema:
        if not isinstance(moving, dict):
            raise ValueError(f"{path} has no moving average of the weights: train with --store-ema, or remove --ema")
        check_dense(path, moving)
        check_finite(path, moving)
        state["model"] = moving
    return state


def _describe(state: dict[str, Any]) -> dict[str, Any]:
    """Return what checkpoints of one training have in common beside the shapes of their weights; no entry is None."""
    symbols = (state.get("task_state") or {}).get("symbols")
    found: dict[str, Any] = {"symbols": symbols}
    if (options := saved_options(state)) is not None:
        found["architecture"] = architecture(state, options)
        for site in SITES:
            name = found[f"attention at site {site}"] = site_type(options, site)
            if name in available_attention():  # else one of a --user-dir
                values = option_values(options, attention_entry(name).options, f"{name}_")
                found |= {f"{name}_{option}": value for option, value in values.items()}
        found |= {name: value for name, value in vars(options).items() if _DEFINING.search(name)}
    return {name: value for name, value in found.items() if value is not None}


def _require_options(first: dict[str, Any], other: dict[str, Any], first_path: Path, path: Path) -> None:
    """Check that ``_describe`` returned the same for two checkpoints, where both have an entry."""
    for name, value in first.items():
        if name in other and other[name] != value:
            values = "" if name == "symbols" else f": {value} and {other[name]}"
            raise ValueError(f"{first_path} and {path} are of different models ({name}{values}): {_SAME}")


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
    """Write a checkpoint completely or not at all.

    Raises:
        ValueError: the file cannot be written.
    """
    try:
        with replacing(path) as part:
            write_checkpoint(state, part)
    except OSError as error:
        raise ValueError(f"cannot write {path} ({error.strerror}): choose another --output") from error
