"""Reading fairseq's checkpoints. Loading one never runs code."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

# fairseq saves its options as a Namespace: with this one class known, its checkpoints load with `weights_only=True`
torch.serialization.add_safe_globals([argparse.Namespace])

_FOREIGN = "{} is not a fairseq checkpoint, or is broken: give one that fairseq-train saved"


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU: tensors and plain values only.

    Raises:
        ValueError: the file is missing, broken, or not a fairseq checkpoint.
    """
    if not path.is_file():
        raise ValueError(f"no checkpoint {path}: check the path")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here; each means that the file cannot be used
        raise ValueError(_FOREIGN.format(path)) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise ValueError(_FOREIGN.format(path))
    return state
