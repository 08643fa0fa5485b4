"""Check the model's options in a checkpoint, before fairseq builds anything from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.utils import get_available_activation_fns
from torch import Tensor

from mla_fairseq.models.limits import check_sizes
from mla_fairseq.models.overrides import flags_of, wrong_value

EVALUATED = ("adaptive_input_cutoff", "adaptive_softmax_cutoff", "xformers_att_config")
"""Ends of the names of options that stock models evaluate as Python if they are texts."""


def check_saved(path: object, options: Mapping[str, Any], weights: Mapping[str, Tensor], name: str) -> None:
    """Check the options from which fairseq will build a model of the architecture ``name`` for these weights.

    Raises:
        ValueError: one of them is not safe, asks for another size than the weights have, or is of another type.
    """
    check_options(path, options)
    check_sizes(path, options, weights)
    check_types(path, options, name)


def check_options(path: object, options: Mapping[str, Any]) -> None:
    """Check that no option is a text that a stock model would evaluate, and that names are known.

    Raises:
        ValueError: one of them is.
    """
    for option, value in options.items():
        if option == "activation_fn" and value not in (None, *get_available_activation_fns()):
            raise ValueError(f"{path} has an unknown activation_fn ({value!r}): give another file")
        if option.endswith("attn_type") and not isinstance(value, str | None):
            raise ValueError(f"{path} has an option that is not a name ({option}={value!r}): give another file")
        if (option.endswith(EVALUATED) and isinstance(value, str)) or option in ("encoder", "decoder"):
            raise ValueError(f"{path} has an option that fairseq would run as code ({option}={value!r}): do not use it")


def check_types(path: object, options: Mapping[str, Any], name: str) -> None:
    """Check that each option has a value that the flag of the architecture ``name`` takes.

    Raises:
        ValueError: one of them has another one.
    """
    actions = flags_of(ARCH_MODEL_REGISTRY[name])
    for option, value in options.items():
        if value is not None and option in actions and (needed := wrong_value(option, value, actions[option])):
            raise ValueError(
                f"{path} has a wrong option ({option}={str(value)[:40]!r}, but it must be {needed}): give a checkpoint "
                "that fairseq-train saved, or correct --model-overrides"
            )
