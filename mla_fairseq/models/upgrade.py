"""Let a decoder load the checkpoint of another one: what the checkpoint lacks starts from scratch."""

from __future__ import annotations

from torch import Tensor, nn

from mla_fairseq.attention import MonotonicMultiheadAttention
from mla_fairseq.models.length import LengthRule


def adapt_length_rule(state_dict: dict[str, Tensor], prefix: str, rule: LengthRule | None) -> None:
    """Let a checkpoint with another length rule load.

    Entries that only the checkpoint's rule has are dropped; entries that only ``rule`` has keep their present values.

    Args:
        state_dict: the checkpoint's parameters, changed in place.
        prefix: the names of the rule's entries begin with it.
        rule: the model's length rule; ``None``: it has none.
    """
    entries = {} if rule is None else rule.state_dict(prefix=prefix)
    for key in [key for key in state_dict if key.startswith(prefix) and key not in entries]:
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
