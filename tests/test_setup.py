"""Metadata, pins and set-up: every dependency is pinned, and only a complete environment counts as one."""

import fcntl
import importlib
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mla_fairseq

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = "mla_fairseq.configs"
PINS = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def test_only_the_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    folders = {path.parent for path in (ROOT / "mla_fairseq").rglob("__init__.py")}
    assert set(given["packages"]) == {".".join(path.relative_to(ROOT).parts) for path in folders} | {CONFIGS}
    assert (ROOT / given["package_dir"][CONFIGS] / "mustc" / "st.yaml").is_file()


def test_every_requirement_has_a_pin_that_satisfies_it() -> None:
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in PINS)}
    for text in [
        *PROJECT["dependencies"],
        *(text for name, texts in EXTRAS.items() if name != "all" for text in texts),
    ]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_all_is_every_extra_but_docs() -> None:
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == PROJECT["name"]
    assert everything.extras == EXTRAS.keys() - {"all", "docs"}


@pytest.mark.parametrize(("name", "place"), PROJECT["scripts"].items())
def test_a_console_script_knows_its_name(name: str, place: str) -> None:
    module = importlib.import_module(place.partition(":")[0])
    assert module.build_parser().prog == name
    assert callable(module.main)


def test_pins_are_exact_sorted_and_without_a_local_version() -> None:
    assert [line for line in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    folded = [line.upper() for line in PINS]  # as `sort -f` does
    assert folded == sorted(folded)


FAKE_PYTHON = f"""#!/bin/sh
case "$*" in
    "-m venv .venv") echo venv >>calls; mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/pip ;;
    "-m pip cache dir") echo "$PWD/${{CACHE:-cache}}" ;;
    *"-m pip install"*) echo "pip cuda=$CUDA_HOME index=$PIP_INDEX_URL no_cache=$PIP_NO_CACHE_DIR" >>calls
        touch .venv/half-installed; echo "no network"; eval "${{PIP_DOES:-:}}" ;;
    *) exec {sys.executable} "$@" ;;
esac
"""


class Checkout:
    """A folder with the files that determine an environment; its Python only records its calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts" / "setup_env.sh", root / "scripts")
        for name in ("setup.py", "pyproject.toml", "constraints.txt"):
            (root / name).write_text("torch==2.13.0\n", encoding="utf-8")
        (root / "python").write_text(FAKE_PYTHON, encoding="utf-8")
        (root / "python").chmod(0o755)

    def set_up(self, timeout: float = 60, **environment: str) -> tuple[list[str], subprocess.CompletedProcess[str]]:
        """Run the set-up; return the recorded calls of Python and the ended process."""
        (self.root / "calls").write_text("")
        variables = {**os.environ, "PYTHON": str(self.root / "python"), **environment}
        command = ["sh", str(self.root / "scripts" / "setup_env.sh")]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout)
        return [line.split()[0] for line in (self.root / "calls").read_text().splitlines()], done

    def calls(self) -> str:
        return (self.root / "calls").read_text()


MADE, UPDATED, KEPT = ["venv", "pip", "pip"], ["pip", "pip"], []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


def test_an_environment_is_made_once(checkout: Checkout) -> None:
    assert checkout.set_up()[0] == MADE
    calls, done = checkout.set_up()
    assert (calls, done.stdout, done.stderr, done.returncode) == (KEPT, "", "", 0)


@pytest.mark.parametrize("change", ["setup.py", "pyproject.toml", "constraints.txt", "scripts/setup_env.sh"])
def test_a_changed_file_updates_the_environment(checkout: Checkout, change: str) -> None:
    checkout.set_up()
    with (checkout.root / change).open("a") as file:
        file.write("# changed\n")
    assert checkout.set_up()[0] == UPDATED
    assert checkout.set_up()[0] == KEPT


def test_a_moved_checkout_is_made_again(checkout: Checkout) -> None:
    checkout.set_up()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    assert checkout.set_up()[0] == MADE


@pytest.mark.parametrize("made_before", [True, False], ids=["while-updating", "while-making"])
def test_an_interrupted_set_up_is_made_again(checkout: Checkout, made_before: bool) -> None:
    if made_before:
        checkout.set_up()
        (checkout.root / "setup.py").write_text("")
    _, done = checkout.set_up(PIP_DOES="kill -9 $PPID")
    assert done.returncode == -signal.SIGKILL
    (checkout.root / ".venv" / "other").touch()
    assert checkout.set_up()[0] == MADE
    assert not (checkout.root / ".venv" / "other").exists()
    assert checkout.set_up()[0] == KEPT


def test_a_failure_of_pip_is_reported_and_resumed(checkout: Checkout) -> None:
    calls, done = checkout.set_up(PIP_DOES="exit 3")
    assert calls == ["venv", "pip"]
    assert done.returncode == 1
    error = "error: set-up stopped at 'torch and build tools' (exit code 3): see .venv.log, then run the command again"
    assert done.stderr.splitlines() == ["no network", error]
    assert checkout.set_up()[0] == UPDATED


@pytest.mark.parametrize("folder", [None, "empty", "thesis.tex"])
def test_another_folder_named_venv_is_not_touched(checkout: Checkout, folder: str | None) -> None:
    if folder:
        (checkout.root / ".venv").mkdir()
    if folder != "thesis.tex":
        assert checkout.set_up()[0] == MADE
        return
    (checkout.root / ".venv" / folder).touch()
    calls, done = checkout.set_up()
    assert calls == KEPT
    assert "error: .venv was not made by this set-up: move it away" in done.stderr
    assert os.listdir(checkout.root / ".venv") == [folder]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("PYTHON", "no-such-python", "error: no Python 3.11 or newer (tried no-such-python): install one"),
        ("CXX", "no-such-compiler -O2", "error: no C++ compiler (no-such-compiler -O2): install one"),
    ],
)
def test_a_missing_program_is_reported_at_once(checkout: Checkout, variable: str, value: str, message: str) -> None:
    calls, done = checkout.set_up(**{variable: value})
    assert (calls, done.returncode) == (KEPT, 1)
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1
    assert not (checkout.root / ".venv").exists()


def test_variables_that_mislead_builds_are_dropped(checkout: Checkout) -> None:
    checkout.set_up(CUDA_HOME="somewhere", PIP_INDEX_URL="kept", PIP_NO_CACHE_DIR="")
    assert "pip cuda= index=kept no_cache=\n" in checkout.calls()


@pytest.mark.skipif(not shutil.which("flock"), reason="needs util-linux's flock")
def test_a_second_set_up_waits_for_the_first(checkout: Checkout) -> None:
    with (checkout.root / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(subprocess.TimeoutExpired) as waiting:
            checkout.set_up(timeout=2)
    assert waiting.value.stdout == b"another set-up of .venv is running: waiting for it\n"
    assert checkout.set_up()[0] == MADE


def test_pip_works_without_a_cache_that_it_cannot_write(checkout: Checkout) -> None:
    checkout.set_up(CACHE="setup.py/cache", PIP_INDEX_URL="")
    assert "no_cache=1\n" in checkout.calls()


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=60)


def test_ci_runs_targets_of_make() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    commands = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    assert commands == ["make lint", "make test", "make docs"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (mla_fairseq.__version__, PROJECT["license"])


def test_make_help_describes_every_target() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = re.findall(r"^  make ([a-z-]+) +\S", make("help").stdout, flags=re.MULTILINE)
    assert targets and shown == targets[1].split()


def test_make_without_a_python_names_the_fix() -> None:
    done = make("setup", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "error: no Python 3.11 or newer (tried no-such-python): install one, or name it" in done.stderr
