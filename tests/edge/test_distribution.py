"""The distribution for devices: its wheel, and the command in an environment that has numpy and onnxruntime alone."""

import ast
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mla_fairseq import __version__
from tests.edge.test_demo import MOST, check_demo, run_demo
from tests.programs import ROOT, run
from tests.streaming.conftest import noise
from tests.test_wheel import pip

LATE = {"mla_fairseq.models.distributed", "mla_fairseq.data.layouts"}
"""What modules of the wheel import only to train, and to read corpora."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, without the files of an earlier build in the checkout."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("mla_fairseq", "edge"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source / "edge")
    (path,) = folder.glob("*.whl")
    return path


def imported(text: str) -> Iterator[str]:
    """Yield the modules of this package that a module imports, also late ones, but not those for type checkers."""
    todo: list[ast.AST] = [ast.parse(text)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mla_fairseq."):
            yield node.module
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            todo += ast.iter_child_nodes(node)


def test_the_wheel_requires_numpy_and_onnxruntime_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        (name,) = (name for name in file.namelist() if name.endswith("/METADATA"))
        metadata = message_from_bytes(file.read(name))
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert [line.partition(">")[0] for line in needed] == ["numpy", "onnxruntime"]
    assert (metadata["Name"], metadata["Version"]) == ("mla-fairseq-edge", __version__)


def test_the_wheel_has_every_module_that_its_modules_import(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        texts = {name: file.read(name).decode() for name in file.namelist() if name.endswith(".py")}
    modules = {
        name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"): text for name, text in texts.items()
    }
    wanted = {module for text in modules.values() for module in imported(text)} - LATE
    assert wanted - set(modules) == set()
    assert "mla_fairseq.edge.runtime.model" in modules and "mla_fairseq.streaming.translator" not in modules
    for name, text in texts.items():
        assert (ROOT / name).read_text(encoding="utf-8") == text


def test_the_wheel_has_the_demo(wheel: Path, tmp_path: Path) -> None:
    assert wheel.stat().st_size <= MOST
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path)
    assert not list(tmp_path.rglob("*.js"))  # the page is what a checkpoint is exported with
    check_demo(run_demo(folder=tmp_path))


@pytest.mark.slow
def test_the_command_runs_where_torch_is_not(wheel: Path, export, tmp_path: Path) -> None:
    folder, done = export("--attn-type relu", "")
    assert done.code == 0, done.err
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "environment"], check=True, timeout=120)
    python = tmp_path / "environment" / "bin" / "python"
    pip("--python", python, "install", "--no-deps", wheel)
    (site,) = tmp_path.glob("environment/lib/python*/site-packages")
    for name in ("numpy", "numpy.libs", "onnxruntime"):
        (site / name).symlink_to(Path(sysconfig.get_path("platlib")) / name)
    soundfile.write(tmp_path / "a.wav", noise(1.4, 3), 16_000)
    command = [python.with_name("mla-edge"), folder, tmp_path / "a.wav", "--number", "1"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    assert found.stdout == run("mla-edge", *command[1:]).out and len(found.stdout.splitlines()) > 2
    demo = subprocess.run([*command[:1], "--demo"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    check_demo(demo)
    for package in ("torch", "fairseq", "soundfile"):
        assert subprocess.run([python, "-c", f"import {package}"], capture_output=True, cwd=tmp_path).returncode == 1
    assert np.isclose(float(found.stderr.split()[1]), 1.4)
