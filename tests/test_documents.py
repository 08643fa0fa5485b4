"""Documents match the code: links lead somewhere, every command parses with its program's own parser, Python runs."""

import ast
import importlib
import inspect
import re
import runpy
import shlex
import string
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import simuleval
from fairseq import options

from mla_fairseq import plugin  # noqa: F401 -- registers the architectures
from mla_fairseq.agents import WaitKAgent
from mla_fairseq.attention import registry
from mla_fairseq.recipes import check, load_recipe

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in zip(NAMES, DOCUMENTS, strict=True)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield document and text of each block in a language; an indented block is one of shell commands."""
    for name, text in TEXTS.items():
        yield from ((name, body) for found, body in FENCE.findall(text) if found == language)
        if language == "sh":
            yield from ((name, body) for body in re.findall(r"(?:^    .+\n)+", FENCE.sub("", text), re.MULTILINE))


class Command(NamedTuple):
    """One line of shell: its program, and its words without the dots that stand for flags of the reader's choice."""

    document: str
    program: str
    arguments: list[str]


def commands() -> Iterator[Command]:
    """Yield every command of every document once, with the variables that the document exports."""
    seen, exported = set(), {name: {} for name in NAMES}
    for name, block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(string.Template(line).safe_substitute(exported[name]), comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):  # such as OMP_NUM_THREADS=1 before a program
                words = words[1:]
            if words and words[0] == "export":
                exported[name] |= dict(word.split("=", 1) for word in words[1:])
            elif words and (name, line.strip()) not in seen:
                seen.add((name, line.strip()))
                program = words[0].removeprefix(".venv/bin/")
                yield Command(name, program, [word for word in words[1:] if word != "..."])


COMMANDS = list(commands())


def parse_fairseq(program: str, arguments: list[str]) -> None:
    parser = options.get_training_parser() if program == "fairseq-train" else options.get_generation_parser()
    if "--help" in arguments:  # which prints what the plugin adds, and exits
        with pytest.raises(SystemExit, match="0"):
            options.parse_args_and_arch(parser, arguments)
        return
    data = ["DATA", "--task", "speech_to_text_mla"] if arguments[0].startswith("--") else []  # "..." for them
    path = [] if program == "fairseq-train" or "--path" in arguments else ["--path", "CKPT"]
    options.parse_args_and_arch(parser, [*data, *arguments, *path])


def parse_simuleval(arguments: list[str]) -> None:
    agent = WaitKAgent
    if "--agent-class" in arguments:
        module, _, name = arguments[arguments.index("--agent-class") + 1].rpartition(".")
        agent = getattr(importlib.import_module(module), name)
    parser = ArgumentParser(allow_abbrev=False)
    agent.add_args(parser)
    known = set(parser._option_string_actions)
    for path in Path(simuleval.__file__).parent.rglob("*.py"):
        known |= set(re.findall(r'"(--[\w-]+)"', path.read_text(encoding="utf-8")))
    assert not [word for word in arguments if word.startswith("--") and word not in known]


def parse_python(arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    first, *rest = arguments
    if first == "-m" and rest[0] == "pytest":
        assert all((ROOT / word).exists() for word in rest if word.startswith("tests"))
        return
    path, rest = (f"{rest[0].replace('.', '/')}/__main__.py", rest[1:]) if first == "-m" else (first, rest)
    patch.syspath_prepend(str(ROOT / "scripts"))
    parse_ours(path, runpy.run_path(str(ROOT / path))["build_parser"](), rest)


def parse_ours(name: str, parser: ArgumentParser, arguments: list[str]) -> None:
    args = parser.parse_args(arguments)
    if name in ("mla-recipe", "scripts/run_recipe.py"):
        check(load_recipe(ROOT / args.recipe, overrides=args.set, name=args.name, data="corpora"))


def parse_pip(arguments: list[str]) -> None:
    assert arguments[:3] == ["install", "-c", "constraints.txt"]
    for extras in re.findall(r"\.\[(.*)\]", " ".join(arguments)):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def parse_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in arguments)


@pytest.mark.parametrize("command", COMMANDS, ids=[f"{one.document}-{one.program}" for one in COMMANDS])
def test_a_command_parses(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    _, program, arguments = command
    monkeypatch.chdir(ROOT)  # commands are run in the clone's folder
    if program in ("fairseq-train", "fairseq-generate"):
        parse_fairseq(program, arguments)
    elif program == "simuleval":
        parse_simuleval(arguments)
    elif program == "python":
        parse_python(arguments, monkeypatch)
    elif program == "pip":
        parse_pip(arguments)
    elif program == "make":
        parse_make(arguments)
    else:  # a program without a parser here is not tested, and so it fails
        module = importlib.import_module(PROJECT["scripts"][program].partition(":")[0])
        parse_ours(program, module.build_parser(), arguments)


def test_documents_show_every_program() -> None:
    """Without commands, the test above would test nothing."""
    shown = {command.program for command in COMMANDS}
    assert {"fairseq-train", "fairseq-generate", "simuleval", "pip", "make", *PROJECT["scripts"]} <= shown


def anchors(name: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", TEXTS[name]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", TEXTS[name]):
        path = ROOT.joinpath(name).parent.joinpath(link).resolve() if link else ROOT / name
        assert path.exists(), link
        assert not anchor or anchor in anchors(path.relative_to(ROOT).as_posix()), f"{link}#{anchor}"


@pytest.mark.parametrize("name", NAMES)
def test_named_files_and_targets_exist(name: str) -> None:
    named = re.findall(r"(?<![\w/.$-])(?:configs|scripts|examples|tests|docs|mla_fairseq)/[\w/.*-]*\w[*]?", TEXTS[name])
    assert not [path for path in named if not any(ROOT.glob(path))]
    parse_make(re.findall(r"`make ([a-z-]+)", TEXTS[name]))


PYTHON = [(f"{name}-{place}", block) for place, (name, block) in enumerate(blocks("python"))]


@pytest.mark.parametrize("block", [block for _, block in PYTHON], ids=[name for name, _ in PYTHON])
def test_python_calls_what_exists(block: str) -> None:
    """Import every name, and bind the arguments of every call of one that is imported."""
    found: dict[str, object] = {}
    for node in ast.walk(tree := ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            found |= {alias.name: getattr(module, alias.name) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (called := _called(node.func, found)):
            keywords = {keyword.arg: None for keyword in node.keywords}
            inspect.signature(called).bind(*node.args, **keywords)


def _called(function: ast.expr, found: dict[str, object]) -> object:
    """Return the imported object that an expression such as ``Layout.at`` names, or ``None``."""
    *owners, name = ast.unparse(function).split(".")
    target = found.get(owners[0] if owners else name)
    return getattr(target, name) if owners and target else target


@pytest.mark.parametrize("block", [block for _, block in PYTHON], ids=[name for name, _ in PYTHON])
def test_python_that_needs_no_checkpoint_runs(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))  # what a block registers is for it alone
    if ".load(" not in block:
        exec(compile(block, "block", "exec"), {"__name__": "block"})


def test_a_state_gives_the_same_as_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    block = next(block for _, block in PYTHON if "nbytes(state)" in block)
    exec(compile(block, "block", "exec"), {})
    difference, size = re.fullmatch(r"tensor\((.+), grad_fn=.*\) (\d+)\n", capsys.readouterr().out).groups()
    assert float(difference) < 1e-4
    assert 0 < int(size) < 1_000_000


def test_yaml_is_that_of_a_recipe() -> None:
    recipes = [path.read_text(encoding="utf-8") for path in ROOT.glob("configs/*/*.yaml")]
    shown = [block for _, block in blocks("yaml")]
    assert shown and all(any(block in recipe for recipe in recipes) for block in shown)


def test_the_readme_is_short() -> None:
    assert len(TEXTS["README.md"].split()) <= 900


@pytest.mark.parametrize("page", ["attention", "streaming", "agents", "recipes"])
def test_the_reference_has_every_public_name(page: str) -> None:
    module = importlib.import_module(f"mla_fairseq.{page}")
    shown = re.findall(rf"^::: {module.__name__}\.(\w+)$", TEXTS[f"docs/reference/{page}.md"], re.MULTILINE)
    assert sorted(shown) == sorted(module.__all__)


def test_the_table_of_mechanisms_matches_the_code() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "describe_mechanisms.py"))["table"]()
    known = {line.split("`")[1] for line in made.splitlines() if line.startswith("| `")}
    rows = [line for line in made.splitlines() if line.split("`")[1:2] != ["quadratic_distance"]]  # the example's
    assert known - {"quadratic_distance"} >= {"softmax", "relu", "cosformer", "leap"}
    assert TEXTS["docs/mechanisms.md"].splitlines() == rows
