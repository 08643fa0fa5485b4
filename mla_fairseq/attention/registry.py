"""The registry: one name, one mechanism, its options. A new mechanism is one entry in one short file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mla_fairseq.attention.base import Mechanism

Build = Callable[[int, Any], Mechanism]


@dataclass(frozen=True)
class Entry:
    """A registered mechanism: ``build(head_dim, options)`` makes it, ``options`` is its dataclass or ``None``."""

    name: str
    build: Build
    options: type | None


_ENTRIES: dict[str, Entry] = {}


def register_attention(name: str, options: type | None = None) -> Callable[[Build], Build]:
    """Register a ``Mechanism`` subclass, or a function that returns one, as ``--attn-type NAME`` (a decorator).

    It is called with ``(head_dim, options)``. ``options`` is a dataclass whose fields have defaults and, as metadata, a
    ``help`` sentence; field ``x`` of mechanism ``name`` becomes the flag ``--name-x``.

    Raises:
        ValueError: a name that another definition has, or that cannot be part of a flag.
        TypeError: no name, or options that are not a dataclass with defaults.
    """
    if not isinstance(name, str):
        raise TypeError(f'register an attention under a name, as in @register_attention("mine"), not {name!r}')
    if not name.isidentifier():
        raise ValueError(f"an attention name must be a Python identifier, but is {name!r}")
    if options is not None:
        _check_options(name, options)

    def register(build: Build) -> Build:
        if name in _ENTRIES and _source(_ENTRIES[name].build) != _source(build):
            raise ValueError(f"attention {name!r} is registered already: choose another name")
        _ENTRIES[name] = Entry(name, build, options)
        return build

    return register


def build_attention(name: str, head_dim: int, /, **options: Any) -> Mechanism:
    """Return the mechanism ``name`` for heads of size ``head_dim``, with its options by field name.

    Raises:
        ValueError: an unknown name or option.
        TypeError: what is registered under that name is not a ``Mechanism``.
    """
    entry = attention_entry(name)
    known = [] if entry.options is None else [field.name for field in dataclasses.fields(entry.options)]
    for option in options:
        if option not in known:
            raise ValueError(f"attention {name!r} has no option {option!r}: it knows {', '.join(known) or 'none'}")
    mechanism = entry.build(head_dim, None if entry.options is None else entry.options(**options))
    if not isinstance(mechanism, Mechanism):
        kind = type(mechanism).__name__
        raise TypeError(f"attention {name!r} must be a Mechanism, but is {kind}: derive it from that class")
    return mechanism


def attention_entry(name: str) -> Entry:
    """The registered entry of that name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in _ENTRIES:
        raise ValueError(f"unknown attention {name!r}: choose one of {', '.join(available_attention())}")
    return _ENTRIES[name]


def available_attention() -> list[str]:
    """The names that ``--attn-type`` takes, sorted."""
    return sorted(_ENTRIES)


def _source(build: Build) -> tuple[str, str]:
    """Return where a definition is: fairseq may import a user-dir's file under two module names."""
    return build.__module__.rpartition(".")[2], build.__qualname__


def _check_options(name: str, options: type) -> None:
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise TypeError(f"the options of attention {name!r} must be a dataclass, but are {options!r}")
    for option in dataclasses.fields(options):
        if option.default is dataclasses.MISSING:
            raise TypeError(f"option {option.name!r} of attention {name!r} needs a default value")
