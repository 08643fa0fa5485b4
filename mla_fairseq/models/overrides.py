"""Changes to a model's options: parse those of ``mla-linearize``, and check those of ``--model-overrides``."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import difflib
import math
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from fairseq.criterions import CRITERION_REGISTRY
from fairseq.dataclass.configs import FairseqConfig
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_REGISTRY

from mla_fairseq.attention import attention_entry, available_attention
from mla_fairseq.checkpoints import saved_options
from mla_fairseq.models.length_options import add_length_args
from mla_fairseq.models.options import SITES, add_attention_args, site_type
from mla_fairseq.models.simul import add_chunk_args, add_simul_args, has_option
from mla_fairseq.models.stock import OURS, stock_model


def parse_override(pair: str) -> tuple[str, object]:
    """Return the option and the value of ``OPTION=VALUE``, for options of mechanisms and lengths.

    Raises:
        ValueError: the pair has no value, the option does not exist, or it does not take the value.
    """
    name, equals, text = pair.partition("=")
    name = name.replace("-", "_")
    if not equals:
        raise ValueError(f"{pair}: write it as OPTION=VALUE, such as target_length=fixed")
    flags = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    add_attention_args(flags)
    add_length_args(flags)
    actions = {action.dest: action for action in flags._actions}
    fixed = argparse.ArgumentParser(add_help=False)
    add_chunk_args(fixed)
    add_simul_args(fixed)
    if name in {action.dest for action in fixed._actions}:
        raise ValueError(f"{pair}: only training sets it: train s2t_transformer_simul_mla with it")
    if name not in actions:
        near = difflib.get_close_matches(name, actions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(sorted(actions))}"
        raise ValueError(f"{pair}: there is no such option: {hint}")
    if actions[name].nargs == 0:  # a switch
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{pair}: give true or false")
        return name, text.lower() == "true"
    try:
        return name, getattr(flags.parse_args([f"--{name.replace('_', '-')}={text}"]), name)
    except argparse.ArgumentError as error:
        raise ValueError(f"{pair}: {error.message}") from error


def parse_model_overrides(text: str) -> dict[str, Any]:
    """Return the dictionary in the text of ``--model-overrides``.

    Raises:
        ValueError: the text is not a Python dictionary of literals.
    """
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(
            f"--model-overrides is {text!r}: give a Python dictionary of literals, such as \"{{'dropout': 0.1}}\""
        ) from error
    return require_dictionary(found)


def require_dictionary(overrides: Any) -> dict[str, Any]:
    """Return overrides of a model's options as a new dictionary; ``None``: no overrides.

    Raises:
        ValueError: they are not a dictionary.
    """
    if not isinstance(overrides, Mapping | None):
        raise ValueError(f"--model-overrides is {overrides!r}: give a Python dictionary")
    return dict(overrides or {})


def check_fixed(overrides: Any) -> dict[str, Any]:
    """Return overrides as ``require_dictionary`` does, if none of them is one that the program has already chosen.

    Raises:
        ValueError: one is, or they are not a dictionary.
    """
    found = require_dictionary(overrides)
    for option in ("task", "data", "config_yaml", "user_dir"):
        if option in found:
            raise ValueError(
                f"--model-overrides names {option!r}, which has no effect, because it is not an option of the model: "
                "remove it, and give it to the command itself"
            )
    return found


def check_overrides(name: str, state: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Check that each option to change exists, takes its value, and belongs to a model of the architecture ``name``.

    Args:
        name: the architecture to build.
        state: the checkpoint, before the change.
        overrides: options and their new values.

    Raises:
        ValueError: one of them has no effect, or a value that its flag does not take.
    """
    if not overrides:
        return
    saved = saved_options(state) or Namespace()
    actions = flags_of(ARCH_MODEL_REGISTRY[name])
    known = _known_options(name, saved, state, overrides)
    for option in overrides:
        if option not in known:
            near = difflib.get_close_matches(str(option), sorted(known), 1, 0)[0]
            fix = f"did you mean {near!r}?"
            if (model := stock_model(name)) and option in flags_of(ARCH_MODEL_REGISTRY[OURS[model]]):
                fix = f"add '_name': '{OURS[model]}'"
            raise ValueError(f"--model-overrides names {option!r}, which is not an option of {name}: {fix}")
    for option, value in overrides.items():
        before = getattr(saved, option, None)
        if value is None and option != "attn_type":  # no mechanism of its own is one, for a site
            continue
        if needed := wrong_value(option, value, actions.get(option), before):
            raise ValueError(f"--model-overrides has {option!r}: {value!r}: give {needed}")
    after = Namespace(**{**vars(saved), **overrides})
    check_mechanisms(after, overrides)
    _check_policy(after, overrides)


def wrong_value(option: str, value: Any, action: argparse.Action | None, saved: Any = None) -> str | None:
    """Return what an option needs instead of ``value``; ``None``: its flag takes the value.

    An option without a flag (no ``action``) needs the type of the value ``saved`` in the checkpoint.
    """
    if isinstance(saved, bool) if action is None else action.nargs == 0:  # a switch: a text would be true
        return None if isinstance(value, bool) else "True or False"
    if action is None:
        return "a number" if isinstance(saved, int | float) and not _is_number(value, float) else None
    if action.choices is not None:
        return None if value in action.choices else f"one of {', '.join(map(str, action.choices))}"
    if action.type in (int, float):
        if not _is_number(value, action.type):
            return "an integer" if action.type is int else "a number"
        return "from 0 to 1" if option.endswith("dropout") and not 0 <= value <= 1 else None
    names = action.type is str or option.endswith("attn_type")
    return "a text" if names and not isinstance(value, str) else None


def _is_number(value: Any, kind: type) -> bool:
    """Return whether a value is a finite number; ``kind``: ``int`` or ``float``."""
    types = int if kind is int else (int, float)
    return isinstance(value, types) and not isinstance(value, bool) and math.isfinite(value)


def _check_policy(options: Namespace, overrides: Mapping[str, Any]) -> None:
    """Check that changed options of a read/write policy belong to the policy of the model."""
    if (simul_type := getattr(options, "simul_type", None)) is None:
        return
    for option in overrides:
        if not has_option(simul_type, option):
            raise ValueError(
                f"--model-overrides names {option!r}, which has no effect, because the model has simul_type "
                f"{simul_type!r}: remove it"
            )


def check_mechanisms(after: Namespace, overrides: Mapping[str, Any], flag: str = "--model-overrides") -> None:
    """Check that changed mechanisms and options of mechanisms belong to a site of the model.

    Args:
        after: the model's options after the change.
        overrides: the changes.
        flag: what gives them, for messages.

    Raises:
        ValueError: one of them has no effect.
    """
    if overrides.get("attn_type") and all(getattr(after, f"{site}_attn_type", None) for site in SITES):
        named = ", ".join(f"{site}_attn_type {site_type(after, site)}" for site in SITES)
        raise ValueError(
            f"{flag} names 'attn_type', which has no effect, because the model has {named}: name these options"
        )
    used = {site_type(after, site) for site in SITES}
    for mechanism in sorted(set(available_attention()) - used):
        fields = dataclasses.fields(options) if (options := attention_entry(mechanism).options) else ()
        for option in (f"{mechanism}_{field.name}" for field in fields):
            if option in overrides:
                raise ValueError(
                    f"{flag} names {option!r}, which has no effect, because the model has no {mechanism} attention: "
                    "remove it"
                )


def _known_options(name: str, saved: Namespace, state: dict[str, Any], overrides: Mapping[str, Any]) -> set[str]:
    """Return the options of a model, its task and criterion, and of fairseq's commands."""
    known = {"task", "data", "arch", "_name"} | vars(saved).keys() | REGISTRIES.keys()
    for section in (state.get("cfg") or {}).values():
        known |= vars(section).keys() if isinstance(section, Namespace) else dict(section or {}).keys()
    for field in dataclasses.fields(FairseqConfig):
        known |= {field.name, *getattr(field.type, "__dataclass_fields__", ())}
    known |= flags_of(ARCH_MODEL_REGISTRY[name]).keys()
    for part, registry in (("task", TASK_REGISTRY), ("criterion", CRITERION_REGISTRY)):
        chosen = registry.get(overrides.get(part, getattr(saved, part, None)))
        known |= set() if chosen is None else flags_of(chosen).keys()
    return known


def flags_of(owner: Any) -> dict[str, argparse.Action]:
    """Return the flags that a model, task or criterion adds to fairseq's parser, by option."""
    parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    owner.add_args(parser)
    return {action.dest: action for action in parser._actions}
