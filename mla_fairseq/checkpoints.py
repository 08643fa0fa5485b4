"""Read fairseq's checkpoints without running code from them.

torch unpickles only tensors and plain values. ``models.loading`` checks what fairseq builds from them.
"""

from __future__ import annotations

import errno
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mla_fairseq.files import unusable

# fairseq saves its options as a Namespace: with this one class known, its checkpoints load with `weights_only=True`
torch.serialization.add_safe_globals([Namespace])

_FIX = "give a checkpoint that fairseq-train saved"
_FOREIGN = f"{{}} is not a fairseq checkpoint, or is broken: {_FIX}"

_SECTIONS = {
    "args": Namespace,
    "cfg": dict,
    "task_state": dict,
    "extra_state": dict,
    "optimizer_history": list,
    "last_optimizer_state": dict,
}
"""Sections of a checkpoint and their types; each may be missing or ``None``."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, on the CPU: tensors and plain values only.

    Raises:
        ValueError: the file is missing, broken, not a fairseq checkpoint, or has weights that are not finite.
    """
    check_exists(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, all for a file that cannot be used
        raise ValueError(_FOREIGN.format(path)) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise ValueError(_FOREIGN.format(path))
    _check_sections(path, state)
    check_dense(path, state["model"])
    check_finite(path, state["model"])
    if state.get("args") is not None:
        state["cfg"] = None  # fairseq builds from args if a file has both: nothing here may look at the other
    return state


def write_checkpoint(state: Any, path: Path) -> None:
    """Write a checkpoint.

    Raises:
        OSError: it cannot be written completely; torch hides the reason, which is a full disk in most cases.
    """
    path.touch()  # raises the true reason, which torch hides too
    try:
        torch.save(state, path)
    except RuntimeError as error:
        raise OSError(errno.ENOSPC, "not written completely, is the disk full?", str(path)) from error


def check_exists(path: Path) -> None:
    """Check that a file exists, before it is loaded.

    Raises:
        ValueError: it does not, or is not a regular file.
    """
    if fault := unusable(path):
        raise ValueError(f"no checkpoint {path}: it {fault}, check the path")


def _check_sections(path: Path, state: dict[str, Any]) -> None:
    """Check that what fairseq and this package read beside the weights has the type that fairseq saves.

    Raises:
        ValueError: a section has another type.
    """
    for name, expected in _SECTIONS.items():
        if not isinstance(state.get(name), expected | None):
            raise ValueError(f"{path} has {name} of another type than fairseq saves: {_FIX}")
    for entry in state.get("optimizer_history") or []:
        if not isinstance(entry, dict) or not isinstance(entry.get("num_updates", 0), int):
            raise ValueError(f"{path} has optimizer_history of another type than fairseq saves: {_FIX}")
    symbols = (state.get("task_state") or {}).get("symbols") or []
    if not isinstance(symbols, list | tuple) or not all(isinstance(symbol, str) for symbol in symbols):
        raise ValueError(f"{path} has symbols that are not a list of texts: {_FIX}")


def check_dense(path: Path, weights: dict[str, Any]) -> None:
    """Check that each entry is a tensor whose data the file contains: a view of one number can have any shape.

    Raises:
        ValueError: one of them is not.
    """
    for name, tensor in weights.items():
        if not isinstance(name, str):
            raise ValueError(f"{path} has a weight without a name ({name}): {_FIX}")
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{path} has a weight that is not a tensor ({name}): {_FIX}")
        usual = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        if not usual or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(f"{path} has a weight without its data ({name}, shape {tuple(tensor.shape)}): {_FIX}")


def check_finite(path: Path, weights: dict[str, torch.Tensor]) -> None:
    """Check that all weights are finite numbers.

    Raises:
        ValueError: one of them is not.
    """
    for name, tensor in weights.items():
        # older versions of fairseq saved one number that was never set
        if not name.endswith("_float_tensor") and not bool(tensor.isfinite().all()):
            raise ValueError(f"{path} has NaN or infinite numbers in '{name}': use an earlier checkpoint")


def saved_options(state: dict[str, Any]) -> Namespace | None:
    """Return a copy of the model's options in a checkpoint; ``None`` if it has none.

    fairseq reads ``args``, which its versions until 2020 wrote, or else ``cfg``.
    """
    cfg = state.get("cfg")
    options = state.get("args") or (cfg.get("model") if isinstance(cfg, dict) else None)
    options = vars(options) if isinstance(options, Namespace) else options
    return Namespace(**options) if isinstance(options, dict) and all(isinstance(x, str) for x in options) else None


def transcript_symbols(state: dict[str, Any]) -> str:
    """Return the characters of transcripts that a checkpoint's model has for CTC; empty if it has none."""
    return getattr(saved_options(state), "ctc_symbols", None) or ""


def architecture(state: dict[str, Any], options: Namespace) -> str:
    """Return the name by which fairseq chooses the model of a checkpoint with these options."""
    keys = ("arch",) if state.get("args") is not None else ("_name", "arch")
    return str(next((name for key in keys if (name := getattr(options, key, None))), None))


def load_training(path: Path) -> tuple[dict[str, Any], str]:
    """Return a checkpoint that has fairseq's options, and the name of its architecture.

    Raises:
        ValueError: ``load_checkpoint`` refuses the file, or it contains only weights.
    """
    state = load_checkpoint(path)
    options = saved_options(state)
    if options is None or not ("optimizer_history" in state or "best_loss" in state):
        raise ValueError(f"{path} has weights without fairseq's options: {_FIX}")
    return state, architecture(state, options)


def check_symbols(path: Path | str, state: dict[str, Any], symbols: Sequence[str], folder: str) -> None:
    """Check that a model was trained with the symbols of the data, in their order.

    Checkpoints of fairseq's tasks, and of older versions of this package, do not have them and are not checked.

    Args:
        path: the checkpoint, for the message.
        state: its content.
        symbols: those of the dictionary of the data.
        folder: the data folder, for the message.

    Raises:
        ValueError: there are others.
    """
    saved = (state.get("task_state") or {}).get("symbols")
    if saved is None or list(saved) == list(symbols):
        return
    place = next((i for i, pair in enumerate(zip(saved, symbols, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        difference = f"{len(saved)} there, {len(symbols)} here"
    else:
        difference = f"symbol {place} is {saved[place]!r} there and {symbols[place]!r} here"
    raise ValueError(
        f"{path} was trained with other symbols than those of {folder} ({difference}): use the folder of its "
        "training data, or one that was prepared with the same texts and options, or with its vocabulary (--vocab)"
    )
