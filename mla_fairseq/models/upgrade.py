"""Let a model load the checkpoint of another one: names are changed, and what it lacks starts from scratch."""

from __future__ import annotations

import re

from torch import Tensor, nn

from mla_fairseq.attention import MonotonicMultiheadAttention


def adapt_optional(state_dict: dict[str, Tensor], prefix: str, part: nn.Module | None) -> None:
    """Let a checkpoint load that has another optional part, such as a length rule or a boundary output, or none.

    Entries that only the checkpoint's part has are dropped; entries that only ``part`` has keep their present values.

    Args:
        state_dict: the checkpoint's parameters, changed in place.
        prefix: the names of the part's entries begin with it.
        part: the model's part; ``None``: it has none.
    """
    entries = {} if part is None else part.state_dict(prefix=prefix)
    for key in [key for key in state_dict if key.startswith(prefix)]:
        # a part of another size, such as a vocabulary, is another part
        if key not in entries or entries[key].shape != state_dict[key].shape:
            del state_dict[key]
    for key, tensor in entries.items():
        state_dict.setdefault(key, tensor.clone())


def adapt_monotonic(state_dict: dict[str, Tensor], prefix: str, decoder: nn.Module) -> None:
    """Let a checkpoint without monotonic attention initialise a decoder with it.

    The projections by which a head decides start as a copy of those by which it attends.

    Args:
        state_dict: the checkpoint's parameters, changed in place.
        prefix: the decoder's name in the checkpoint.
        decoder: a decoder with monotonic attention.
    """
    for name, module in decoder.named_modules(prefix=prefix):
        if not isinstance(module, MonotonicMultiheadAttention):
            continue
        for projection in ("q_proj", "k_proj"):
            for parameter in ("weight", "bias"):
                if (known := state_dict.get(f"{name}.{projection}.{parameter}")) is not None:
                    # a checkpoint that has monotonic heads keeps them
                    state_dict.setdefault(f"{name}.{projection}_mono.{parameter}", known.clone())
        if module.energy_bias is not None:
            state_dict.setdefault(f"{name}.energy_bias", module.energy_bias.detach().clone())


def adopt_subsampler(state_dict: dict[str, Tensor], prefix: str, has_norm: bool) -> None:
    """Give the subsampler of fairseq's ConvTransformer its name here.

    Args:
        state_dict: the checkpoint's parameters, changed in place.
        prefix: the names of the encoder's entries begin with it.
        has_norm: whether the encoder has a final norm; fairseq stores one that it never applies.
    """
    if f"{prefix}conv.0.weight" not in state_dict:
        return
    for key in [key for key in state_dict if key.startswith((f"{prefix}conv.", f"{prefix}out."))]:
        state_dict[f"{prefix}subsample.{key.removeprefix(prefix)}"] = state_dict.pop(key)
    if not has_norm:
        for parameter in ("weight", "bias"):
            state_dict.pop(f"{prefix}layer_norm.{parameter}", None)


def adopt_monotonic(state_dict: dict[str, Tensor], prefix: str, monotonic: bool) -> None:
    """Give the projections of fairseq's simultaneous attention their names here.

    There ``q_proj`` and ``k_proj`` decide, and ``q_proj_soft`` and ``k_proj_soft`` attend; with wait-k ``q_proj`` and
    ``k_proj`` attend, and the others are not used.

    Args:
        state_dict: the checkpoint's parameters, changed in place.
        prefix: the names of the decoder's entries begin with it.
        monotonic: whether the decoder has monotonic attention.
    """
    pattern = re.compile(rf"({re.escape(prefix)}.*\.encoder_attn\.[qk]_proj)_soft(\..+)")
    for match in [match for key in state_dict if (match := pattern.fullmatch(key))]:
        soft, (stem, parameter) = state_dict.pop(match[0]), match.groups()
        if monotonic:
            state_dict[f"{stem}_mono{parameter}"] = state_dict.pop(stem + parameter)
            state_dict[stem + parameter] = soft
    for key in [key for key in state_dict if key.startswith(prefix) and key.endswith(".encoder_attn.energy_bias")]:
        bias = state_dict.pop(key)
        if monotonic:
            state_dict[key] = bias.reshape(())  # there its shape is (1,)
