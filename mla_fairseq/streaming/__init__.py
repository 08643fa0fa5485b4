"""Simultaneous translation: samples in as they arrive, whole words out.

A ``Session`` translates one recording with a ``Translator`` under a policy, a ``LongSession`` a recording of any
length. The package does not import SimulEval: the agents in ``mla_fairseq.agents`` do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mla_fairseq.streaming.public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Return a public name. It is imported now (PEP 562), because some modules of this package work without torch."""
    try:
        return getattr(import_module("mla_fairseq.streaming.public"), name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
