"""Provide the references of bench_attention.py: ten lines of plain torch, and two packages installed for one run.

Each is a function of queries, keys and values (B, H, T, D) with ReLU features; linear-attention-transformer has its own
features, and a position sees only the buckets before its own.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
FAST, LUCID = "fast-transformers", "linear-attention-transformer"
PACKAGES = {
    FAST: ["pytorch-fast-transformers==0.4.0"],
    LUCID: [
        "linear-attention-transformer==0.19.1", "local-attention", "linformer", "product-key-memory",
        "axial-positional-embedding", "colt5-attention", "hyper-connections", "einops",
    ],
}  # fmt: skip


def plain_causal(q: Tensor, k: Tensor, v: Tensor, chunk: int = 64) -> Tensor:
    """Attend causally in chunks, as a user of plain torch would write it."""
    q, k, v = (x.unflatten(2, (-1, chunk)) for x in (q.relu(), k.relu(), F.pad(v, (0, 1), value=1.0)))
    added = k.mT @ v
    before = added.cumsum(2) - added
    sums = (q @ k.mT).tril() @ v + q @ before
    return (sums[..., :-1] / sums[..., -1:].clamp_min(1e-6)).flatten(2, 3)


def plain_full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend to every key."""
    sums = q.relu() @ (k.relu().mT @ F.pad(v, (0, 1), value=1.0))
    return sums[..., :-1] / sums[..., -1:].clamp_min(1e-6)


def plain_step(state: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Add one key to a state (B, H, F, D + 1), and attend to it: output (B, H, 1, D), and the new state."""
    state = state + k.relu().mT @ F.pad(v, (0, 1), value=1.0)
    sums = q.relu() @ state
    return sums[..., :-1] / sums[..., -1:].clamp_min(1e-6), state


def install(name: str, folder: Path) -> str | None:
    """Install a package into ``folder`` and let this process import it; return why that failed, or ``None``."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    paths = os.environ["PATH"].split(os.pathsep)
    without_cuda = os.pathsep.join(path for path in paths if not (Path(path) / "nvcc").exists())  # build for the CPU
    done = subprocess.run(
        [*command, "--target", str(folder), *PACKAGES[name]],
        env=os.environ | {"PATH": without_cuda}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        return f"pip could not install {PACKAGES[name][0]}: {done.stderr.strip().splitlines()[-1]}"
    sys.path.append(str(folder))
    try:
        importlib.import_module(name.replace("-", "_") + (".attention" if name == FAST else ""))
    except ImportError as error:
        return f"{PACKAGES[name][0]} cannot be imported: {error}"
    return None


def fast_transformers(view: str, head_size: int) -> Attention:
    """Return attention of pytorch-fast-transformers; its causal product is C++."""
    from fast_transformers.attention import CausalLinearAttention, LinearAttention
    from fast_transformers.feature_maps import ActivationFunctionFeatureMap
    from fast_transformers.masking import FullMask, LengthMask, TriangularCausalMask

    attention = (CausalLinearAttention if view == "causal" else LinearAttention)(
        head_size, ActivationFunctionFeatureMap.factory(torch.relu)
    )

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length, lengths = q.shape[2], LengthMask(torch.full((len(q),), q.shape[2]))
        mask = TriangularCausalMask(length) if view == "causal" else FullMask(length)
        return attention(*(x.transpose(1, 2) for x in (q, k, v)), mask, lengths, lengths).transpose(1, 2)

    return run


def fast_transformers_step(head_size: int) -> Callable[[Tensor, Tensor, Tensor], object]:
    """Return a decoding step of pytorch-fast-transformers on a state that it stores."""
    from fast_transformers.feature_maps import ActivationFunctionFeatureMap
    from fast_transformers.recurrent.attention import RecurrentLinearAttention

    attention = RecurrentLinearAttention(head_size, ActivationFunctionFeatureMap.factory(torch.relu))
    kept: list[object] = [None]

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output, kept[0] = attention(q[:, :, 0], k[:, :, 0], v[:, :, 0], kept[0])
        return output

    return run


def linear_attention_transformer(view: str) -> Attention:
    """Return attention of linear-attention-transformer."""
    from linear_attention_transformer import linear_attention_transformer as package

    return package.causal_linear_attn if view == "causal" else package.linear_attn
