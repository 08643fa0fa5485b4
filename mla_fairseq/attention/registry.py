"""The registry: one name, one mechanism, its options. A new mechanism is one short file with one entry."""

import dataclasses
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mla_fairseq.attention.base import Mechanism
from mla_fairseq.attention.numerics import describe

Build = Callable[[int, Any], Mechanism]


@dataclass(frozen=True)
class Entry:
    """A registered mechanism: ``build(head_dim, options)`` returns it; ``source`` is where ``build`` is defined."""

    name: str
    build: Build
    options: type | None
    source: tuple[str, str] = ("", "")


_ENTRIES: dict[str, Entry] = {}


def register_attention(name: str, options: type | None = None) -> Callable[[Build], Build]:
    """Register the decorated ``Mechanism`` subclass, or function that returns one, as ``--attn-type NAME``.

    ``options`` is a dataclass whose fields have defaults and, as metadata, a ``help`` text; field ``x`` of mechanism
    ``name`` becomes the flag ``--name-x``.

    Raises:
        ValueError: a name that another definition has, or that cannot be part of a flag.
        TypeError: no name, options that are not a dataclass with defaults, or neither a class nor a function.
    """
    if not isinstance(name, str):
        raise TypeError(f'register an attention under a name, as in @register_attention("mine"), not {name!r}')
    if not name.isidentifier():
        raise ValueError(f"an attention name must be a Python identifier, but is {name!r}")
    if options is not None and not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise TypeError(f"the options of attention {name!r} must be a dataclass, but are {options!r}")
    for option in dataclasses.fields(options) if options else ():
        if option.default is dataclasses.MISSING:
            raise TypeError(f"option {option.name!r} of attention {name!r} needs a default value")
    caller = sys._getframe(1).f_globals  # of the file with the definition; a notebook has no ``__file__``
    file = os.path.realpath(caller.get("__file__", caller["__name__"]))

    def register(build: Build) -> Build:
        if not hasattr(build, "__qualname__"):
            raise TypeError(f"attention {name!r} must be a class or a function, but is {build!r}")
        source = (file, build.__qualname__)  # not the module: fairseq may import a user-dir's file under two names
        if name in _ENTRIES and _ENTRIES[name].source != source:
            where = _ENTRIES[name].source[0]
            raise ValueError(f"attention {name!r} is already registered in {where}: choose another name")
        _ENTRIES[name] = Entry(name, build, options, source)
        return build

    return register


def build_attention(name: str, head_dim: int, /, **options: Any) -> Mechanism:
    """Return the mechanism ``name`` for heads of size ``head_dim``, with its options by field name.

    Raises:
        ValueError: an unknown name or option.
        TypeError: the registered function does not return a ``Mechanism``.
    """
    entry = attention_entry(name)
    known = [] if entry.options is None else [field.name for field in dataclasses.fields(entry.options)]
    for option in options:
        if option not in known:
            raise ValueError(f"attention {name!r} has no option {option!r}: it has {', '.join(known) or 'none'}")
    mechanism = entry.build(head_dim, None if entry.options is None else entry.options(**options))
    if not isinstance(mechanism, Mechanism):
        raise TypeError(
            f"attention {name!r} must be a Mechanism, but is {describe(mechanism)}: derive it from that class"
        )
    return mechanism


def attention_entry(name: str) -> Entry:
    """Return the registered entry of that name.

    Raises:
        ValueError: an unknown name; the message lists the known names.
    """
    if name not in _ENTRIES:
        advice = "if another package registers it, import that package first (in commands: --user-dir)"
        raise ValueError(f"unknown attention {name!r}: choose one of {', '.join(available_attention())}; {advice}")
    return _ENTRIES[name]


def available_attention() -> list[str]:
    """Return the values of ``--attn-type``, sorted."""
    return sorted(_ENTRIES)
