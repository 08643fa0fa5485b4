"""The arguments of an agent that another program than SimulEval builds, such as simulstream's wrapper."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from types import SimpleNamespace


def completed(args: Namespace | SimpleNamespace, add_args: Callable[[ArgumentParser], None]) -> Namespace:
    """Return the arguments of an agent with the defaults of all flags that they lack.

    Args:
        args: ``model_path``, ``data_bin``, and any others. ``tgt_lang`` is the target language where no parser has
            set the flag's own name, ``language``.
        add_args: adds the flags of the agent to a parser.

    Raises:
        ValueError: one of the two is missing.
    """
    given = {"language": getattr(args, "tgt_lang", None)} | vars(args)
    for name in ("model_path", "data_bin"):
        if given.get(name) is None:
            raise ValueError(f"the agent has no {name}: give --{name.replace('_', '-')}, or the key in a yaml file")
    parser = ArgumentParser(prog="agent", allow_abbrev=False)
    add_args(parser)
    required = [f"--model-path={given['model_path']}", f"--data-bin={given['data_bin']}"]
    return parser.parse_args(required, Namespace(**given))  # argparse sets what the namespace lacks
