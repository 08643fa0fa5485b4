"""What runs on a device imports neither torch nor fairseq, nor anything else but numpy and onnxruntime."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT

BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {*sys.stdlib_module_names, "mla_fairseq", "numpy", "onnxruntime"}:
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
"""


def run_blocked(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run code in a folder, in a process in which nothing but numpy, onnxruntime and its package can be imported."""
    command = [sys.executable, "-c", BLOCKED + code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("module", ["streaming.choice", "streaming.long", "files", "edge.runtime.speaking"])
def test_a_module_is_imported_without_torch(module: str) -> None:
    done = run_blocked(f"import mla_fairseq.{module}")
    assert done.returncode == 0, done.stderr


def test_a_name_that_needs_torch_is_imported_when_it_is_used() -> None:
    done = run_blocked("import mla_fairseq.streaming\nmla_fairseq.streaming.Translator")
    assert "is blocked" in done.stderr.splitlines()[-1]


def test_an_unknown_name_is_reported() -> None:
    import mla_fairseq.speech
    import mla_fairseq.streaming

    for package in (mla_fairseq.streaming, mla_fairseq.speech):
        with pytest.raises(AttributeError, match=rf"module '{package.__name__}' has no attribute 'Sesion'"):
            package.Sesion  # noqa: B018
