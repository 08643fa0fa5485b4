"""Read fairseq's checkpoints without running code from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

# fairseq saves its options as a Namespace: with this one class known, its checkpoints load with `weights_only=True`
torch.serialization.add_safe_globals([argparse.Namespace])

_FOREIGN = "{} is not a fairseq checkpoint, or is broken: give one that fairseq-train saved"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content, on the CPU: tensors and plain values only.

    Raises:
        ValueError: the file is missing, broken, or not a fairseq checkpoint.
    """
    if not path.is_file():
        raise ValueError(f"no checkpoint {path}: check the path")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here, all for a file that cannot be used
        raise ValueError(_FOREIGN.format(path)) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise ValueError(_FOREIGN.format(path))
    return state


def load_training(path: Path) -> tuple[dict[str, Any], str]:
    """Return a checkpoint that has fairseq's options, and the name of its architecture.

    Raises:
        ValueError: ``load_checkpoint`` refuses the file, or it contains only weights.
    """
    state = load_checkpoint(path)
    cfg, args = state.get("cfg"), state.get("args")
    options = cfg.get("model") if isinstance(cfg, dict) else args
    options = vars(options) if isinstance(options, argparse.Namespace) else options
    known = "optimizer_history" in state or "best_loss" in state
    if not isinstance(options, dict) or not known:
        raise ValueError(f"{path} has weights without fairseq's options: give a checkpoint that fairseq-train saved")
    return state, str(options.get("_name") or options.get("arch"))
