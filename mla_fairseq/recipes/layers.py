"""Read the layers of a recipe, which are its base, its file and ``--set``, and check each: sections of flags.

Hyphens in names become underscores, so that ``max-update`` and ``max_update`` are one flag in every layer.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import ScalarEvent, YAMLError

from mla_fairseq.files import read_text, unusable
from mla_fairseq.parsing import yaml_events
from mla_fairseq.recipes.stages import STAGES

TEXTS = ("data", "title")
_KNOWN = (*TEXTS, *STAGES)
_YAML = (YAMLError, OmegaConfBaseException, ValueError)
# YAML 1.1 reads 010 as 8 and 1:30 as 90
_OTHER_NUMBER = re.compile(r"[-+]?0[0-7_]+|[-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?")

Layer = dict[str, Any]
"""Sections with their flags, ``data`` and ``title``; variables as they are written."""


def read_layers(path: Path) -> list[Layer]:
    """Return the layers of a recipe's file, that of its base first.

    Raises:
        ValueError: a file is missing, or is not a recipe.
    """
    own, base = _read(path)
    if base is None:
        return [own]
    if not isinstance(base, str) or not base:
        raise ValueError(f"{path}: base is {base!r}: give the path of one recipe")
    below, more = _read(path.parent / base)
    if more is not None:
        raise ValueError(f"{path}: its base {base} has a base of its own ({more}): keep to one")
    return [below, own]


def parse_overrides(overrides: list[str]) -> Layer:
    """Return the layer of ``--set``.

    Raises:
        ValueError: one of them is not ``section.key=value``, the value in YAML.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not override.isprintable():
            shown = override if override.isprintable() else repr(override)
            raise ValueError(f"--set {shown}: write section.key=value, such as train.max_update=3000")
        if not value.strip():
            raise ValueError(f"--set {override}: the value is missing: give one, or null to leave {key} out")
        _check_yaml(value, f"--set {override}:")
    try:
        return _layer(OmegaConf.to_container(OmegaConf.from_dotlist(overrides)), "--set")
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"--set {' '.join(overrides)}: not valid YAML: {' '.join(str(error).split())}") from error


def _read(path: Path) -> tuple[Layer, Any]:
    """Return the layer of a file, and its ``base``."""
    if fault := unusable(path):
        known = sorted(one.name for one in path.parent.glob("*.yaml"))
        raise ValueError(f"{path} {fault}: {near(path.name, known)}")
    text = read_text(path)
    _check_yaml(text, f"{path} is")
    try:
        tree = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
    except _YAML as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path} is not a recipe: it needs sections, such as train")
    base = tree.pop("base", None)
    return _layer(tree, str(path)), base


def _check_yaml(text: str, where: str) -> None:
    """Check that a text is YAML without aliases, and without numbers that YAML reads as other ones."""
    try:
        events = list(yaml_events(text))
    except ValueError as error:
        raise ValueError(f"{where} not valid YAML: {error}") from error
    for event in events:
        if isinstance(event, ScalarEvent) and event.implicit[0] and _OTHER_NUMBER.fullmatch(event.value):
            raise ValueError(f"{where} ambiguous: YAML reads {event.value} as another number: write it in quotes")


def _layer(tree: Any, where: str) -> Layer:
    """Return the sections with underscores in all names, checked."""
    sections = _underscored(tree, where)
    for name, section in sections.items():
        if name not in _KNOWN:
            raise ValueError(f"{where}: unknown section '{name}': {near(name, _KNOWN)}")
        if name in TEXTS and isinstance(section, dict | list):
            raise ValueError(f"{where}: '{name}' is {section!r}: give one text")
        if name not in TEXTS and not isinstance(section, dict | None):
            raise ValueError(f"{where}: '{name}' is {section!r}: write it as flags of its program, key: value")
        if isinstance(section, dict):
            sections[name] = _underscored(section, f"{where}: {name}")
            for key, value in sections[name].items():
                _check_value(value, f"{where}: {name}.{key}")
    return sections


def _underscored(names: dict[Any, Any], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for written, value in names.items():
        name = str(written).replace("-", "_")
        if name in found:
            raise ValueError(f"{where}: '{name}' is given twice, also as '{written}': keep one")
        found[name] = value
    return found


def _check_value(value: Any, where: str) -> None:
    """Check that a value can be given to a flag."""
    values = value if isinstance(value, list) else [value]
    if any(isinstance(one, dict | list) for one in values):
        raise ValueError(f"{where} is {value!r}: give one value, or a list of values")
    if any(isinstance(one, str) and not one.strip() for one in values):
        raise ValueError(f"{where} is empty: give a value, or null to leave the flag out")
    if any(isinstance(one, str) and not one.isprintable() for one in values):
        raise ValueError(f"{where} is {value!r}: remove the line breaks and control characters")


def near(word: str, known: Iterable[str]) -> str:
    """Return advice for a word that is not ``known``: the nearest known word, or at most five to choose from."""
    known = sorted(known)
    if found := get_close_matches(word, known, n=1):
        return f"did you mean {found[0]}?"
    if len(known) <= 5:
        return f"take one of {', '.join(known)}"
    return f"take one of {', '.join(sorted(get_close_matches(word, known, 5, 0)))} or {len(known) - 5} others"
