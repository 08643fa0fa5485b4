"""Every command of the documents parses with its program's own parser, and every flag that they name exists."""

import importlib.util
import re
import runpy
import shlex
import string
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import simuleval
from fairseq import options
from fairseq_cli import score
from torch.distributed.run import get_args_parser

from mla_fairseq import (
    agents,
    plugin,  # noqa: F401 -- registers the architectures
)
from mla_fairseq.edge.page import INSTALL
from mla_fairseq.recipes import check, load_recipe
from tests.documents import FENCE, NAMES, PROJECT, ROOT, TEXTS, blocks


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
    interactive = program == "fairseq-interactive"
    parser = options.get_training_parser() if program == "fairseq-train" else options.get_generation_parser(interactive)
    if "--help" in arguments:  # which prints what the plugin adds, and exits
        with pytest.raises(SystemExit, match="0"):
            options.parse_args_and_arch(parser, arguments)
        return
    omitted = not arguments or arguments[0].startswith("--")
    data = ["DATA", "--task", "speech_to_text_mla"] if omitted else []  # "..." stands for them
    if program == "fairseq-train" and "--arch" not in arguments:
        arguments = [*arguments, "--arch", "s2t_transformer_mla"]
    path = [] if program == "fairseq-train" or "--path" in arguments else ["--path", "CKPT"]
    options.parse_args_and_arch(parser, [*data, *arguments, *path])


def simuleval_flags(agent: type) -> set[str]:
    """Return the flags of SimulEval, from its sources, and of an agent."""
    parser = ArgumentParser(allow_abbrev=False)
    agent.add_args(parser)
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(simuleval.__file__).parent.rglob("*.py"))
    return set(parser._option_string_actions) | set(re.findall(r'"(--[\w-]+)"', sources))


def parse_simuleval(arguments: list[str]) -> None:
    agent = agents.WaitKAgent
    if "--agent-class" in arguments:
        module, _, name = arguments[arguments.index("--agent-class") + 1].rpartition(".")
        agent = getattr(importlib.import_module(module), name)
    assert {word for word in arguments if word.startswith("--")} <= simuleval_flags(agent)


FOREIGN = {
    "omnisteval": "omnisteval.cli",
    "simulstream_inference": "simulstream.inference",
    "simulstream_score_latency": "simulstream.metrics.score_latency",
    "simulstream_server": "simulstream.server.websocket_server",
    "simulstream_stats": "simulstream.metrics.stats",
    "simulstream_wavs_client": "simulstream.client.wav_reader_client",
}
"""Programs of other packages, and the modules that have their flags."""


def parse_foreign(program: str, arguments: list[str]) -> None:
    package = FOREIGN[program].partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    source = importlib.util.find_spec(FOREIGN[program]).origin
    known = set(re.findall(r'"(--[\w-]+)"', Path(source).read_text(encoding="utf-8")))
    assert {word for word in arguments if word.startswith("--")} <= known


def parse_docker(arguments: list[str]) -> None:
    """Check the build arguments; no machine here has Docker."""
    if arguments[0] == "build":
        text = (ROOT / arguments[arguments.index("-f") + 1]).read_text(encoding="utf-8")
        names = [arguments[i + 1].partition("=")[0] for i, word in enumerate(arguments) if word == "--build-arg"]
        assert names == re.findall(r"^ARG (\w+)", text, re.MULTILINE)


def parse_python(arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    first, *rest = arguments
    if first == "-m" and rest[0] == "pytest":
        assert all((ROOT / word).exists() for word in rest if word.startswith("tests"))
        return
    patch.syspath_prepend(str(ROOT / "scripts"))
    if first == "-m":
        first, *rest = rest
        name = f"{first}.__main__" if (ROOT / first.replace(".", "/")).is_dir() else first
        found = vars(importlib.import_module(name))
    else:
        found = runpy.run_path(str(ROOT / first))
    parse_ours(first, found["build_parser"](), rest)


def parse_ours(name: str, parser: ArgumentParser, arguments: list[str]) -> None:
    args = parser.parse_args(arguments)
    if name in ("mla-recipe", "scripts/run_recipe.py"):
        check(load_recipe(args.recipe, overrides=args.set, name=args.name, data="corpora"))


def parse_pip(arguments: list[str]) -> None:
    assert arguments[:3] == ["install", "-c", "constraints.txt"]
    for extras in re.findall(r"\.\[(.*)\]", " ".join(arguments)):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def parse_launcher(program: str, arguments: list[str]) -> None:
    """Parse the flags of torchrun by its own parser; no machine here has SLURM. Then parse the launched command."""
    launched = next(index for index, word in enumerate(arguments) if word.startswith("fairseq-"))
    if program == "torchrun":
        get_args_parser().parse_args(arguments)
    parse_fairseq(arguments[launched], arguments[launched + 1 :])


def parse_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in arguments)


@pytest.mark.parametrize("command", COMMANDS, ids=[f"{one.document}-{one.program}" for one in COMMANDS])
def test_a_command_parses(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    _, program, arguments = command
    monkeypatch.chdir(ROOT)  # commands are run in the clone's folder
    if program in ("fairseq-train", "fairseq-generate", "fairseq-interactive"):
        parse_fairseq(program, arguments)
    elif program in ("torchrun", "srun"):
        parse_launcher(program, arguments)
    elif program == "simuleval":
        parse_simuleval(arguments)
    elif program in FOREIGN:
        parse_foreign(program, arguments)
    elif program == "docker":
        parse_docker(arguments)
    elif program == "python":
        parse_python(arguments, monkeypatch)
    elif program == "npm":
        assert [program, *arguments] == INSTALL.split()
    elif program == "pip":
        parse_pip(arguments)
    elif program == "make":
        parse_make(arguments)
    else:  # a program without a parser here is not tested, and so it fails
        module = importlib.import_module(PROJECT["scripts"][program].partition(":")[0])
        parse_ours(program, module.build_parser(), arguments)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_in_a_language_that_is_tested(name: str) -> None:
    assert {language for language, _ in FENCE.findall(TEXTS[name])} <= {"sh", "python", "yaml", "text"}


TRAININGS = [
    ("s2t_transformer_simul_mla", "speech_to_text_mla", "label_smoothed_cross_entropy_mla"),
    ("s2t_transformer_mla", "speech_to_text_mla", "label_smoothed_cross_entropy_mla"),
    ("s2t_conformer_mla", "speech_to_text_mla", "label_smoothed_cross_entropy_mla"),
    ("tts_transformer_mla", "text_to_speech_mla", "tacotron2_mla"),
    ("transformer_lm", "language_modeling", "cross_entropy"),
]


@pytest.fixture(scope="module")
def flags() -> set[str]:
    """Return the flags of all programs."""
    parsers = [
        options.get_generation_parser(default_task="speech_to_text_mla"),
        options.get_interactive_generation_parser(),
        options.get_validation_parser(),
        score.get_parser(),
        options.get_preprocessing_parser(),
    ]
    for arch, task, criterion in TRAININGS:
        parsers.append(parser := options.get_training_parser(default_task=task))
        options.parse_args_and_arch(parser, ["DATA", "--arch", arch, "--criterion", criterion])
    for function in PROJECT["scripts"].values():
        parsers.append(importlib.import_module(function.partition(":")[0]).build_parser())
    known = {flag for parser in parsers for flag in parser._option_string_actions}
    for name in agents.__all__:
        known |= simuleval_flags(getattr(agents, name))
    scripts = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("scripts/*.py"))
    return known | set(re.findall(r"--[a-z][\w-]+", scripts))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "CHANGELOG.md"])  # which also has former flags
def test_flags_in_the_text_exist(name: str, flags: set[str]) -> None:
    spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", TEXTS[name]))
    named = {flag for span in spans for flag in re.findall(r"(?<![\w-])--[a-z][\w-]+", span)}
    assert not named - flags - {"--name-x"}  # a placeholder


@pytest.mark.parametrize("name", NAMES)
def test_named_targets_exist(name: str) -> None:
    parse_make(re.findall(r"`make ([a-z-]+)", TEXTS[name]))


def test_documents_show_every_program() -> None:
    """Without commands, the test above would test nothing."""
    shown = {command.program for command in COMMANDS}
    assert {"fairseq-train", "fairseq-generate", "simuleval", "pip", "make", *PROJECT["scripts"]} <= shown
