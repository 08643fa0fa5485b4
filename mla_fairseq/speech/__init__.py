"""Speech: reading audio, filter banks, normalization. Imports no sibling package."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mla_fairseq.speech.public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Return a public name. It is imported now (PEP 562), because some modules of this package work without torch."""
    try:
        return getattr(import_module("mla_fairseq.speech.public"), name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
