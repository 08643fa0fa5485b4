"""Parse changes to a model's options, such as ``target_length=fixed``, with the parser of their flags."""

from __future__ import annotations

import argparse
import difflib

from mla_fairseq.models.length_options import add_length_args
from mla_fairseq.models.options import add_attention_args
from mla_fairseq.models.simul import add_chunk_args, add_simul_args


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
