"""Errors of a command line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("module", ["prepare_tts", "synthesize"])
def test_a_missing_package_is_reported_with_its_extra(module: str) -> None:
    program = f"import sys; sys.modules['librosa'] = None; from mla_fairseq.cli import {module}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "librosa" in done.stderr and 'install the extra tts: pip install -c constraints.txt ".[tts]"' in done.stderr
