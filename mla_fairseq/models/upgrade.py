"""Checkpoints of one decoder for another one: what its length rule or its monotonic heads lack starts from scratch."""

from __future__ import annotations

from torch import Tensor, nn

from mla_fairseq.attention import MonotonicMultiheadAttention
from mla_fairseq.models.length import LengthRule


def adapt_length_rule(state_dict: dict[str, Tensor], prefix: str, rule: LengthRule | None) -> None:
    """Let a checkpoint load whose length rule is another one: what only that has is left out, what only this has stays
    as it is here. ``prefix`` is the rule's place in the checkpoint."""
    own = {} if rule is None else rule.state_dict(prefix=prefix)
    for key in [key for key in state_dict if key.startswith(prefix) and key not in own]:
        del state_dict[key]
    for key, tensor in own.items():
        state_dict.setdefault(key, tensor.clone())


def adapt_monotonic(state_dict: dict[str, Tensor], prefix: str, decoder: nn.Module) -> None:
    """A model without monotonic attention initialises one with: its heads decide by what they attend by."""
    for name, module in decoder.named_modules(prefix=prefix):
        if not isinstance(module, MonotonicMultiheadAttention):
            continue
        for side in ("q_proj", "k_proj"):
            for part in ("weight", "bias"):
                if (known := state_dict.get(f"{name}.{side}.{part}")) is not None:
                    state_dict.setdefault(f"{name}.{side}_mono.{part}", known.clone())
        if module.energy_bias is not None:
            state_dict.setdefault(f"{name}.energy_bias", module.energy_bias.detach().clone())
