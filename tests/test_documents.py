"""The documents say what is there: links lead somewhere, commands parse as they stand, Python runs."""

import ast
import importlib
import re
import runpy
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest
import simuleval
from fairseq import options

import mla_fairseq  # noqa: F401 -- registers the architectures
from mla_fairseq.agents import WaitKAgent
from mla_fairseq.recipes import check, load_recipe

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
PROGRAMS = ("fairseq-train", "fairseq-generate", "simuleval", "scripts/")


def indented(text: str) -> Iterator[str]:
    """The shell lines of a document, continued ones joined, without comments."""
    for block in re.findall(r"(?:^    .+\n)+", text, re.MULTILINE):
        yield from (re.sub(r"\s#.*", "", line).strip() for line in re.sub(r"\\\n", " ", block).splitlines())


def commands() -> Iterator[tuple[str, str, list[str]]]:
    """Document, program, arguments; ``...`` stands for flags that are up to the reader."""
    for name, path in zip(NAMES, DOCUMENTS, strict=True):
        for line in indented(path.read_text(encoding="utf-8")):
            words = [word for word in shlex.split(line) if word != "..."]
            for place, word in enumerate(words):
                program = word.removeprefix(".venv/bin/")
                if program.startswith(PROGRAMS):
                    yield name, program, words[place + 1 :]
                    break


COMMANDS = list(commands())


def python_blocks() -> Iterator[tuple[str, str]]:
    for name, path in zip(NAMES, DOCUMENTS, strict=True):
        for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
            yield name, block


BLOCKS = list(python_blocks())


def parse_fairseq(program: str, arguments: list[str]) -> None:
    parser = options.get_training_parser() if program == "fairseq-train" else options.get_generation_parser()
    data = ["DATA", "--task", "speech_to_text_mla"] if arguments[0].startswith("--") else []  # "..." for them
    path = [] if program == "fairseq-train" or "--path" in arguments else ["--path", "CKPT"]
    options.parse_args_and_arch(parser, [*data, *arguments, *path])


def parse_simuleval(arguments: list[str]) -> None:
    parser = ArgumentParser(allow_abbrev=False)
    WaitKAgent.add_args(parser)
    known = set(parser._option_string_actions)
    for path in Path(simuleval.__file__).parent.rglob("*.py"):
        known |= set(re.findall(r'"(--[\w-]+)"', path.read_text(encoding="utf-8")))
    unknown = [word for word in arguments if word.startswith("--") and word not in known]
    assert not unknown


def parse_script(program: str, arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    patch.syspath_prepend(str(ROOT / "scripts"))
    script = runpy.run_path(str(ROOT / program))
    patch.setattr(sys, "argv", [program, *arguments])
    args = script["build_parser"]().parse_args()
    if program == "scripts/run_recipe.py":
        check(load_recipe(ROOT / args.recipe, overrides=args.set, name=args.name, data="corpora"))


@pytest.mark.parametrize(("name", "program", "arguments"), COMMANDS, ids=[f"{n}-{p}" for n, p, _ in COMMANDS])
def test_a_command_parses(name: str, program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if program.startswith("fairseq"):
        parse_fairseq(program, arguments)
    elif program == "simuleval":
        parse_simuleval(arguments)
    else:
        parse_script(program, arguments, monkeypatch)


def test_there_are_commands_of_every_program() -> None:
    """Or the test above would hold nothing."""
    assert {"fairseq-train", "fairseq-generate", "simuleval", "scripts/run_recipe.py"} <= {p for _, p, _ in COMMANDS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_what_a_document_names_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", text)
    missing = [link for link in links if not (path.parent / link).exists()]
    named = re.findall(r"(?<![\w/.$-])(?:configs|scripts|examples|tests|docs|mla_fairseq)/[\w/.*-]*\w[*]?", text)
    missing += [name for name in named if not any(ROOT.glob(name))]
    targets = re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    missing += [f"make {name}" for name in targets if not re.search(rf"^{name}:", makefile, re.MULTILINE)]
    assert not missing


@pytest.mark.parametrize(("name", "block"), BLOCKS, ids=[name for name, _ in BLOCKS])
def test_what_python_imports_is_there(name: str, block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


def test_attention_alone_does_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    block = next(block for name, block in BLOCKS if name == "README.md" and "nbytes(state)" in block)
    exec(compile(block, "README.md", "exec"), {})
    difference, size = re.fullmatch(r"tensor\((.+), grad_fn=.*\) (\d+)\n", capsys.readouterr().out).groups()
    assert float(difference) < 1e-4
    assert 0 < int(size) < 1_000_000


def test_the_table_of_mechanisms_is_what_the_code_says() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "describe_mechanisms.py"))["table"]()
    known = {line.split("`")[1] for line in made.splitlines() if line.startswith("| `")}
    written = (ROOT / "docs" / "mechanisms.md").read_text(encoding="utf-8")
    rows = [line for line in made.splitlines() if line.split("`")[1:2] != ["quadratic_distance"]]  # the example's
    assert known - {"quadratic_distance"} >= {"softmax", "relu", "cosformer", "leap"}
    assert written.splitlines() == rows
