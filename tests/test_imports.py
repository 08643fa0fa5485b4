"""Imports run one way. The package is read with ast, not imported: a late import inside a function counts too."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAME = "mla_fairseq"
COMPUTED = "(a computed name)"
STDLIB = frozenset(sys.stdlib_module_names)


@dataclass(frozen=True)
class Rule:
    """Imports that the modules of one folder may have: of this package, and from outside (None: any)."""

    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] | None = None


# "" is the package's __init__, which imports the plugin where fairseq wants it; nobody imports it back.
RULES = {
    "": Rule(inside=("plugin",), outside=()),
    "plugin": Rule(inside=("checkpoints", "criterions", "models", "tasks"), outside=()),
    "attention": Rule(outside=("torch",)),
    "errors": Rule(outside=()),
    "json_text": Rule(outside=()),
    "transcripts": Rule(outside=()),
    "parsing": Rule(inside=("json_text",), outside=("yaml",)),
    "files": Rule(inside=("json_text",), outside=()),
    "processes": Rule(inside=("files",), outside=()),
    "checkpoints": Rule(inside=("files",), outside=("torch",)),
    "averaging": Rule(inside=("attention", "checkpoints", "files", "models.options"), outside=("torch",)),
    "speech": Rule(inside=("files",), outside=("torch", "numpy", "kaldi_native_fbank", "librosa", "soundfile", "soxr")),
    "models": Rule(inside=("attention", "checkpoints", "errors", "speech", "transcripts")),
    "criterions": Rule(inside=("errors", "models", "transcripts")),
    "streaming": Rule(inside=("attention", "checkpoints", "errors", "files", "models", "parsing", "speech")),
    "synthesis": Rule(inside=("checkpoints", "errors", "files", "models", "speech")),
    "edge": Rule(
        inside=(
            "attention",
            "checkpoints",
            "data.spoken_text",
            "errors",
            "files",
            "models",
            "speech",
            "streaming",
            "synthesis",
        )
    ),
    "live": Rule(inside=("errors", "files", "parsing", "speech", "streaming"), outside=("numpy", "tornado")),
    "agents": Rule(inside=("errors", "files", "speech", "streaming")),
    "data": Rule(inside=("errors", "files", "parsing", "processes", "speech", "transcripts")),
    "tasks": Rule(
        inside=(
            "checkpoints",
            "data",
            "errors",
            "files",
            "models",
            "processes",
            "speech",
            "streaming",
            "synthesis",
            "transcripts",
        )
    ),
    "evaluation": Rule(
        inside=("errors", "files", "parsing", "processes", "transcripts"),
        outside=("jiwer", "librosa", "matplotlib", "numpy", "pocketsphinx", "sacrebleu", "scipy", "soundfile"),
    ),
    "recipes": Rule(inside=("errors", "evaluation", "files", "parsing", "plugin", "processes")),
}
RULES["cli"] = Rule(inside=tuple(RULES)[1:])  # of all; nothing imports it

# Packages that only some folders may import, whatever their rule is.
OWNERS = {
    "fairseq": ("cli", "models", "criterions", "streaming", "synthesis", "recipes", "tasks"),
    "fairseq_cli": ("models", "criterions", "tasks"),
    "simuleval": ("agents",),
    "tornado": ("live",),
    "simulstream": ("streaming",),
    "onnx": ("edge",),
    "onnxruntime": ("edge", "streaming"),
}


def modules(package: Path) -> dict[str, Path]:
    """Map dotted names, that of the package first, to files."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk the tree, without code for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from nodes(node)


def imports(module: str, path: Path) -> Iterator[str]:
    """Yield the dotted name of everything that ``module`` imports; ``from a import b`` gives a.b."""
    for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            base = parents[: len(parents) - node.level + 1] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            # a name that is computed at run time cannot be checked: it is not allowed
            name = node.args[0]
            yield name.value if isinstance(name, ast.Constant) else COMPUTED


def module_of(name: str, known: dict[str, Path]) -> str:
    """Return the module that the dotted ``name`` is, or is defined in."""
    while name not in known:
        name = name.rpartition(".")[0]
    return name


def folder_of(module: str) -> str:
    return [*module.split("."), ""][1]


def graph(package: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Return the imports of every module: of this package, and of packages from outside."""
    known = modules(package)
    inside = {module: set() for module in known}
    outside = {module: set() for module in known}
    for module, path in known.items():
        for name in imports(module, path):
            if name.split(".")[0] == package.name:
                inside[module].add(module_of(name, known))
            elif name.split(".")[0] not in STDLIB:
                outside[module].add(name.split(".")[0])
    return inside, outside


def may_import(folder: str, target: str) -> bool:
    """Tell whether a module of ``folder`` may import the module ``target`` of this package."""
    below = target.partition(".")[2]
    allowed = RULES[folder].inside
    return (bool(folder) and folder_of(target) == folder) or any(f"{below}.".startswith(f"{part}.") for part in allowed)


def may_use(folder: str, package: str) -> bool:
    """Tell whether a module of ``folder`` may import ``package`` from outside."""
    known = RULES[folder].outside
    if package == COMPUTED:
        return False
    return folder in OWNERS.get(package, (folder,)) and (known is None or package in known)


def breaches(package: Path) -> list[str]:
    """Return every import that the rules forbid, as "importer -> imported"."""
    inside, outside = graph(package)
    found = [f"{a} -> {b}" for a, targets in inside.items() for b in targets if not may_import(folder_of(a), b)]
    return sorted(
        found + [f"{a} -> {b}" for a, names in outside.items() for b in names if not may_use(folder_of(a), b)]
    )


def cycle(edges: dict[str, set[str]]) -> list[str]:
    """Return the modules of one import cycle, or an empty list."""
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges[module]):
            if found := visit(target, (*trail, module)):
                return found
        done.add(module)
        return []

    return next((found for module in edges if (found := visit(module, ()))), [])


def test_every_folder_has_a_rule() -> None:
    unknown = {folder_of(module) for module in modules(ROOT / NAME)} - set(RULES)
    assert not unknown, "give each new folder its line in RULES"


def test_the_package_follows_the_rules() -> None:
    found = breaches(ROOT / NAME)
    assert not found, "forbidden imports: " + ", ".join(found)


def test_the_package_has_no_import_cycle() -> None:
    assert cycle(graph(ROOT / NAME)[0]) == []


def make_package(folder: Path, files: dict[str, str]) -> Path:
    """Write a package of the same name with ``files``, and an empty __init__ wherever one is missing."""
    package = folder / NAME
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for inner in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (inner / "__init__.py").touch()
    return package


@pytest.mark.parametrize(
    ("file", "line", "breach"),
    [
        pytest.param("attention/a.py", "import numpy as np", "attention.a -> numpy", id="attention-needs-torch-alone"),
        pytest.param("attention/a.py", "from ..speech import b", "attention.a -> {}.speech.b", id="relative-sibling"),
        pytest.param("speech/__init__.py", "from .. import models", "speech -> {}.models", id="relative-from-init"),
        pytest.param("agents/a.py", "from {}.models import c", "agents.a -> {}.models.c", id="agents-import-models"),
        pytest.param("synthesis/a.py", "import {}.streaming", "synthesis.a -> {}.streaming", id="synthesis-streaming"),
        pytest.param("streaming/a.py", "import {}.synthesis", "streaming.a -> {}.synthesis", id="streaming-synthesis"),
        pytest.param("data/a.py", "def f():\n    import fairseq.data", "data.a -> fairseq", id="late-import"),
        pytest.param("data/a.py", "f = importlib.import_module('fairseq')", "data.a -> fairseq", id="import-by-name"),
        pytest.param("data/a.py", "f = importlib.import_module(x)", "data.a -> (a computed name)", id="computed-name"),
        pytest.param("models/a.py", "import simuleval", "models.a -> simuleval", id="simuleval-outside-agents"),
        pytest.param("data/a.py", "from {} import __version__", "data.a -> {}", id="the-package-itself"),
        pytest.param("evaluation/a.py", "import torch", "evaluation.a -> torch", id="evaluation-reads-files"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, file: str, line: str, breach: str) -> None:
    files = {name: "" for name in ("speech/b.py", "models/c.py", "streaming/d.py", "synthesis/e.py")}
    files[file] = line.format(NAME)
    assert breaches(make_package(tmp_path, files)) == [f"{NAME}.{breach.format(NAME)}"]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        pytest.param("attention/a.py", "import math\nimport torch.nn.functional as F", id="stdlib-and-torch"),
        pytest.param("agents/a.py", "from {}.streaming.b import Session", id="agents-streaming"),
        pytest.param("models/a.py", "from {}.speech.b import x\nfrom fairseq import utils", id="models-downwards"),
        pytest.param(
            "attention/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import numpy", id="types-only"
        ),
    ],
)
def test_an_allowed_import_passes(tmp_path: Path, file: str, line: str) -> None:
    files = {"speech/b.py": "", "streaming/b.py": "", file: line.format(NAME)}
    assert breaches(make_package(tmp_path, files)) == []


def test_an_import_cycle_is_found(tmp_path: Path) -> None:
    lines = {"a": "from .b import x", "b": "from . import c", "c": "def f():\n    from .a import y"}
    package = make_package(tmp_path, {f"speech/{name}.py": line for name, line in lines.items()})
    found = cycle(graph(package)[0])
    assert found[0] == found[-1]
    assert set(found) == {f"{NAME}.speech.{name}" for name in lines}
