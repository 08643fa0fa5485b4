"""Limit the sizes that a checkpoint's options ask for to those of its weights, before anything is built from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

LIMITS = (
    (re.compile(r"_layers$|kernel_size"), 100),
    (re.compile(r"(_dim|_channels|_heads|_features|_per_channel|_per_step)$"), 4096),
    (re.compile(r"^max_(source|target)_positions$"), 1_000_000),  # fairseq builds a table of them
)
"""The largest values of options whose names match, where no weight shows the size."""
FIRST = r"(transformer_layers\.0\.fc1|conformer_layers\.0\.ffn1\.w_1)"
SHAPES = {
    "encoder_embed_dim": (rf"encoder\.{FIRST}\.weight", 1),
    "encoder_ffn_embed_dim": (rf"encoder\.{FIRST}\.weight", 0),
    "depthwise_conv_kernel_size": (r"encoder\.conformer_layers\.0\.conv_module\.depthwise_conv\.weight", 2),
    "decoder_embed_dim": (r"decoder\.(transformer_)?layers\.0\.fc1\.weight", 1),
    "decoder_ffn_embed_dim": (r"decoder\.(transformer_)?layers\.0\.fc1\.weight", 0),
    "conv_channels": (r"encoder\.subsample\.conv_layers\.0\.weight", 0),
    "conv_out_channels": (r"encoder\.(subsample\.)?conv\.0\.weight", 0),
    "output_frame_dim": (r"decoder\.feat_proj\.weight", 0),
    "n_frames_per_step": (r"decoder\.feat_proj\.weight", 0),
}
"""Options, and the dimension of the weight that is at least as large."""
LAYERS = {
    f"{part}_{name}": re.compile(rf"{part}\.(?:transformer_|conformer_)?layers\.(\d+)\.")
    for part in ("encoder", "decoder")
    for name in ("layers", "transformer_layers")
}
"""Options that count the layers of which the weights have these names."""


def check_sizes(path: object, options: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Check that the model's options ask for no larger model than the weights of their file are.

    Raises:
        ValueError: a size is too large, negative, no number, or 0 attention heads.
    """
    for option, value in options.items():
        most = _largest(option, weights)
        needed = option.endswith("coder_attention_heads") or option in LAYERS
        if most is None or (value is None and not (most and needed)):
            continue
        numbers = str(value).split(",") if isinstance(value, str) else [value]  # such as the kernel sizes "5,5"
        least = int(option.endswith("_attention_heads"))
        if len(numbers) > LIMITS[0][1] or not all(least <= _number(number) <= most for number in numbers):
            raise ValueError(
                f"{path} asks for another size than its weights have ({option}={repr(value)[:40]}, {least} to {most}): "
                "give a checkpoint that fairseq-train saved, or correct --model-overrides"
            )


def _largest(option: str, weights: Mapping[str, Tensor]) -> int | None:
    """Return the largest value that an option may have; ``None``: it is no size."""
    if option in LAYERS:
        found = (LAYERS[option].match(name) for name in weights)
        return len({match[1] for match in found if match})
    if option in SHAPES:
        pattern, dim = SHAPES[option]
        for name, weight in weights.items():
            if re.fullmatch(pattern, name) and weight.dim() > dim:
                return weight.shape[dim]
    return next((most for pattern, most in LIMITS if pattern.search(option)), None)


def _number(value: Any) -> int:
    """Return an integer, or a decimal number in a text; -1 for anything else."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*\d{1,9}\s*", value) else -1
    return value if isinstance(value, int) else -1
