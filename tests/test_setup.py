"""Set-up: what is installed is pinned, and an environment is taken for whole only when it is."""

import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mla_fairseq

ROOT = Path(__file__).resolve().parent.parent
PINS = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]


@pytest.fixture
def setup_env() -> ModuleType:
    """scripts/setup_env.py as a module."""
    spec = importlib.util.spec_from_file_location("setup_env", ROOT / "scripts" / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py tells setuptools."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **keywords: told.update(keywords))
    runpy.run_path(str(ROOT / "setup.py"))
    return told


def test_setup_py_reads_the_version_of_the_package(package: dict[str, Any]) -> None:
    assert package["version"] == mla_fairseq.__version__


def test_every_requirement_has_a_pin_that_satisfies_it(package: dict[str, Any]) -> None:
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in PINS)}
    for text in package["install_requires"] + package["extras_require"]["all"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def test_all_means_every_extra(package: dict[str, Any]) -> None:
    extras = package["extras_require"]
    assert set(extras["all"]) == {text for name, texts in extras.items() if name != "all" for text in texts}


def test_pins_are_exact_sorted_and_without_a_local_version() -> None:
    assert [line for line in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    folded = [line.upper() for line in PINS]  # as `sort -f` does
    assert folded == sorted(folded)


def checkout(folder: Path, names: tuple[str, ...]) -> Path:
    """A folder that holds the files which decide on an environment."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("torch==2.13.0\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("change", ["setup.py", "pyproject.toml", "constraints.txt", "scripts/setup_env.py"])
def test_a_changed_file_means_update(setup_env: ModuleType, tmp_path: Path, change: str) -> None:
    root, venv = checkout(tmp_path, setup_env.DECIDES), tmp_path / ".venv"
    venv.mkdir()
    setup_env.write_stamp(venv, setup_env.fingerprint(root, venv))
    assert setup_env.plan(venv, setup_env.fingerprint(root, venv)) == "keep"
    (root / change).write_text("torch==2.14.0\n", encoding="utf-8")
    assert setup_env.plan(venv, setup_env.fingerprint(root, venv)) == "update"


def test_another_python_means_create(setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, venv = checkout(tmp_path, setup_env.DECIDES), tmp_path / ".venv"
    venv.mkdir()
    setup_env.write_stamp(venv, setup_env.fingerprint(root, venv))
    monkeypatch.setattr(setup_env, "python_id", lambda: "3.99.0 elsewhere")
    assert setup_env.plan(venv, setup_env.fingerprint(root, venv)) == "create"


def test_a_moved_checkout_means_create(setup_env: ModuleType, tmp_path: Path) -> None:
    root, venv = checkout(tmp_path / "old", setup_env.DECIDES), tmp_path / "old" / ".venv"
    venv.mkdir()
    setup_env.write_stamp(venv, setup_env.fingerprint(root, venv))
    moved = root.rename(tmp_path / "new")
    assert setup_env.plan(moved / ".venv", setup_env.fingerprint(moved, moved / ".venv")) == "create"


@pytest.mark.parametrize("empty", [False, True], ids=["no-folder", "empty-folder"])
def test_nothing_there_means_create(setup_env: ModuleType, tmp_path: Path, empty: bool) -> None:
    if empty:
        (tmp_path / ".venv").mkdir()
    assert setup_env.plan(tmp_path / ".venv", "wanted\n") == "create"


def test_a_folder_of_somebody_else_is_left_alone(setup_env: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(SystemExit, match=r"was not made by this set-up: move it away"):
        setup_env.plan(tmp_path, "wanted\n")


@pytest.mark.parametrize("afresh", [True, False], ids=["create", "update"])
def test_an_interrupted_set_up_is_made_afresh(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, afresh: bool
) -> None:
    def interrupt(title: str, command: list[str], log: Path) -> None:
        (tmp_path / "half-installed").touch()
        raise KeyboardInterrupt

    wanted = setup_env.fingerprint(ROOT, tmp_path)
    if not afresh:
        setup_env.write_stamp(tmp_path, wanted)
    monkeypatch.setattr(setup_env, "run", interrupt)
    monkeypatch.setattr(setup_env, "cache_options", lambda python: [])
    with pytest.raises(KeyboardInterrupt):
        setup_env.install(tmp_path, afresh, wanted, tmp_path / "log")
    assert setup_env.plan(tmp_path, wanted) == "create"
    setup_env.clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [setup_env.STAMP]


def test_a_set_up_that_pip_gave_up_goes_on_from_there(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(title: str, command: list[str], log: Path) -> None:
        raise setup_env.StepFailed("error: no network")

    wanted = setup_env.fingerprint(ROOT, tmp_path)
    monkeypatch.setattr(setup_env, "run", no_network)
    monkeypatch.setattr(setup_env, "cache_options", lambda python: [])
    with pytest.raises(SystemExit, match="no network"):
        setup_env.install(tmp_path, False, wanted, tmp_path / "log")
    assert setup_env.plan(tmp_path, wanted) == "update"


@pytest.mark.parametrize(("end", "orderly"), [("sys.exit(1)", True), ("os.kill(os.getpid(), 9)", False)])
def test_a_killed_step_is_not_a_failed_one(setup_env: ModuleType, tmp_path: Path, end: str, orderly: bool) -> None:
    with pytest.raises(SystemExit) as stop:
        setup_env.run("step", [sys.executable, "-c", f"import os, sys; {end}"], tmp_path / "log")
    assert isinstance(stop.value, setup_env.StepFailed) == orderly


def test_a_failed_step_shows_the_end_of_its_log(setup_env: ModuleType, tmp_path: Path) -> None:
    program = "import sys; print('start', *range(40), sep='\\n'); sys.exit('no space left')"
    with pytest.raises(SystemExit) as failure:
        setup_env.run("download", [sys.executable, "-c", program], tmp_path / "log")
    message = str(failure.value)
    assert "no space left" in message
    assert "start" not in message
    assert message.endswith(f"set-up stopped at 'download'; everything it said is in {tmp_path / 'log'}")


def test_a_missing_compiler_is_named_at_once(setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(SystemExit, match="no-such-compiler is not on the PATH"):
        setup_env.check_machine()


def test_variables_that_lead_builds_astray_are_dropped(setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", "somewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "kept")
    variables = setup_env.environment()
    assert "CUDA_HOME" not in variables
    assert variables["PIP_INDEX_URL"] == "kept"


@pytest.mark.parametrize(
    ("place", "options"), [("folder", []), ("folder/not/yet/there", []), ("file/pip", ["--no-cache-dir"])]
)
def test_pip_goes_without_a_cache_it_cannot_write(
    setup_env: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, options: list[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / place))
    assert setup_env.cache_options(Path(sys.executable)) == options


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=60)


def test_make_help_tells_every_target() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    told = re.findall(r"^  make ([a-z-]+) +\S", make("help").stdout, flags=re.MULTILINE)
    assert told == targets.group(1).split()


def test_make_without_a_python_says_what_to_do() -> None:
    done = make("setup", "PYTHON=")
    assert done.returncode != 0
    assert "error: no Python 3.11 or newer on the PATH" in done.stderr
