"""From a recipe's keys to the dataclasses of :mod:`mla_fairseq.recipes.schema`: every key known, every type right."""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from mla_fairseq.recipes.schema import KINDS, REQUIRED


def unknown_key(key: str, known: tuple[str, ...] | list[str], where: str) -> ValueError:
    """The error for a key nobody knows: the nearest one first, then all of them."""
    near = get_close_matches(key, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ValueError(f"{where}: unknown key '{key}'.{hint} Known keys: {', '.join(sorted(known))}.")


def build_section(kind: str, section: str, values: dict[str, Any], where: str) -> Any:
    """The section's dataclass, every key known, every type right, nothing required missing.

    Raises:
        ValueError: naming the key, its value and what it should be.
    """
    cls = KINDS[kind][section]
    fields = {known.name: known for known in dataclasses.fields(cls)}
    kinds = get_type_hints(cls)
    for key in values:
        if key not in fields:
            raise unknown_key(key, list(fields), f"{where}: {section}")
    for key, known in fields.items():
        if known.default is REQUIRED and values.get(key) is None:
            raise ValueError(f"{where}: {section}.{key} is missing; it is the {known.metadata['help']}.")
    checked = {key: _coerce(value, kinds[key], f"{where}: {section}.{key}") for key, value in values.items()}
    for key, value in checked.items():
        choices = fields[key].metadata["choices"]
        if choices and value not in choices:
            raise ValueError(f"{where}: {section}.{key} is '{value}', but must be one of {', '.join(choices)}.")
        least = fields[key].metadata["least"]
        if least is not None and value is not None and value < least:
            raise ValueError(f"{where}: {section}.{key} is {value}, but must be at least {least}.")
    return cls(**checked)


def _coerce(value: Any, kind: Any, where: str) -> Any:
    """``value`` as ``kind``; YAML reads 2e-3 as text and 10 as an integer, both are fine floats."""
    allowed = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if value is None and NoneType in allowed:
        return None
    target = next(kind for kind in allowed if kind is not NoneType)
    if isinstance(value, target) and not (isinstance(value, bool) and target is int):
        return value
    if target in (int, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        number = _number(value)
        if number is not None and (target is float or number == int(number)):
            return target(number)
    wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping of flags"}
    raise ValueError(f"{where} is {value!r}, but must be {wanted[target]}.")


def _number(value: int | float | str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def default_of(key: dataclasses.Field) -> Any:
    """A key's default; only mappings are made by a factory."""
    return {} if key.default is dataclasses.MISSING else key.default


def describe_keys() -> str:
    """All keys with their defaults and sentences, as text for ``--list-keys``."""
    lines = []
    for kind, sections in KINDS.items():
        lines.append(f"kind: {kind}")
        for section, cls in sections.items():
            lines.append(f"  {section}: {cls.__doc__}")
            for known in dataclasses.fields(cls):
                lines.append(f"    {section}.{known.name} = {default_of(known)!r}: {known.metadata['help']}")
    return "\n".join(lines)
