"""From a YAML file to a :class:`~mla_fairseq.recipes.schema.Recipe`: inheritance, ``--set``, variables, checks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mla_fairseq.attention import available_attention
from mla_fairseq.recipes.keys import build_section, unknown_key
from mla_fairseq.recipes.schema import KINDS, SECTIONS, TOP_KEYS, Recipe

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_MENDS = {"DATA": "set it to the folder that holds the corpora, e.g. `export DATA=$HOME/corpora`"}


def load_recipe(
    path: str | Path, variables: Mapping[str, str], overrides: Iterable[str] = (), name: str = ""
) -> Recipe:
    """Reads, merges and checks a recipe.

    Args:
        path: the YAML file; its ``base`` (a file beside it) is read first, and its own keys win.
        variables: values of ``${NAME}`` in the file.
        overrides: ``section.key=value``, values in YAML.
        name: the run's name; the file's stem when empty.

    Raises:
        ValueError: one line that names the file, the key, its value and the mend.
    """
    path, overrides = Path(path), tuple(overrides)
    tree = _read_with_bases(path, ())
    for override in overrides:
        _apply_override(tree, override)
    used: dict[str, str] = {}
    tree = _expand(tree, variables, str(path), used)
    kind = _kind(tree, str(path))
    sections = {name: build_section(kind, name, tree.get(name) or {}, str(path)) for name in KINDS[kind]}
    _check_together(sections, str(path))
    about = {"name": name or path.stem, "kind": kind, "source": path.as_posix(), "overrides": overrides}
    return Recipe(**about, variables=used, description=tree.get("description") or "", **sections)


def _kind(tree: dict[str, Any], where: str) -> str:
    """What sections the recipe has.

    Raises:
        ValueError: there is no such kind, or it has no such section.
    """
    kind = tree.get("kind", "translation")
    if kind not in list(KINDS):  # a list has no hash
        raise ValueError(f"{where}: kind is {kind!r}, but must be one of {', '.join(KINDS)}.")
    for section in SECTIONS:
        if section in tree and section not in KINDS[kind]:
            raise ValueError(f"{where}: a recipe of the kind '{kind}' has no section '{section}'.")
    return kind


def _check_together(sections: dict[str, Any], where: str) -> None:
    """What no section can see alone."""
    model, train, decode, corpus = sections["model"], sections["train"], sections["decode"], sections["data"].corpus
    if not re.fullmatch(r"\w[\w.-]*", corpus):
        raise ValueError(f"{where}: data.corpus is '{corpus}', but must be a name for a folder: letters, digits, _ . -")
    if getattr(decode, "recogniser", None) not in (None, "english", "train"):
        raise ValueError(f"{where}: decode.recogniser is '{decode.recogniser}', but must be one of english, train.")
    if train.criterion == "tacotron2" and (
        train.guided_attention_loss_weight is not None or model.extra.get("length_predictor")
    ):
        raise ValueError(
            f"{where}: train.criterion is tacotron2, which needs train.guided_attention_loss_weight=null, "
            "model.extra.length_predictor=false, model.extra.target_length=ratio: set them, or take tacotron2_mla."
        )
    sites = {key: name for key, name in vars(model).items() if key.endswith("attn_type") and name is not None}
    known = available_attention()
    for key, name in () if model.user_dir else sites.items():  # a plugin may bring mechanisms of its own
        if name not in known:
            raise ValueError(f"{where}: model.{key} is '{name}', but must be one of {', '.join(known)}.")
    last, kept = sections["average"].last, train.keep_interval_updates
    if last > kept >= 0:
        raise ValueError(
            f"{where}: average.last is {last}, but train.keep_interval_updates keeps only {kept}; raise it."
        )


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ValueError(f"{path}: 'base' leads back to this file; a recipe cannot be its own base.")
    tree = _read(path)
    base = tree.pop("base", None)
    if base is None:
        return tree
    return _merge(_read_with_bases(path.parent / base, (*seen, path.resolve())), tree)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = sorted(other.name for other in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f" In {path.parent} there are: {', '.join(near)}." if near else ""
        raise ValueError(f"recipe {path} does not exist.{hint}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: a recipe is a mapping of {', '.join(TOP_KEYS)}, but this is {type(tree).__name__}.")
    for key, value in tree.items():
        if key not in TOP_KEYS:
            raise unknown_key(str(key), list(TOP_KEYS), str(path))
        if key in SECTIONS and value is not None and not isinstance(value, dict):
            raise ValueError(f"{path}: '{key}' must be a mapping of keys to values, but is {value!r}.")
    return tree


def _merge(base: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """The child's values over the base's; mappings are merged, ``null`` is a value like any other."""
    merged = dict(base)
    for key, value in child.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *parents, leaf = key.strip().split(".")
    if not equals or not parents:
        raise ValueError(f"--set {override}: write it as section.key=value, e.g. --set train.max_update=3000.")
    if parents[0] not in SECTIONS:
        raise unknown_key(parents[0], list(SECTIONS), f"--set {override}")
    node = tree
    for parent in parents:
        if not isinstance(node.get(parent), dict):
            node[parent] = {}
        node = node[parent]
    try:
        node[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {override}: the value is not valid YAML.") from error


def _expand(node: Any, variables: Mapping[str, str], where: str, used: dict[str, str]) -> Any:
    """Replaces ``${NAME}`` in every text of the tree, and notes the names in ``used``."""
    if isinstance(node, dict):
        joint = "." if ": " in where else ": "
        return {key: _expand(value, variables, f"{where}{joint}{key}", used) for key, value in node.items()}
    if not isinstance(node, str):
        return node

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in variables:
            mend = _MENDS.get(name, f"set it in the environment: `export {name}=...`")
            raise ValueError(f"{where} is '{node}', but {name} is not set: {mend}.")
        used[name] = variables[name]
        return variables[name]

    return _VARIABLE.sub(value_of, node)
