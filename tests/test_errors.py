"""Errors of a command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mla_fairseq import agents
from mla_fairseq.cli.sweep_agent import AGENTS
from mla_fairseq.errors import UserError, user_errors

ROOT = Path(__file__).resolve().parents[1]


PROGRAM = """
import sys
sys.modules[sys.argv[1]] = None
from mla_fairseq.cli import {module}
try:
    {module}.main(["--help"])
except SystemExit as end:
    assert not end.code
{module}.main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("module", "missing", "extra", "flags"),
    [
        ("prepare_tts", "librosa", "tts", "folder --output out"),
        ("synthesize", "librosa", "tts", "a.pt --data data --output out --text a"),
        ("synthesize", "matplotlib", "plots", "a.pt --data data --output out --text a"),
        ("sweep_agent", "simuleval", "simul", "--agent WaitKAgent --output out -- --model-path a.pt"),
        ("live", "tornado", "live", "a.pt --data data"),
        ("plot", "matplotlib", "plots", "points.tsv --output out"),
    ],
)
def test_help_works_without_an_extra_and_a_run_reports_it(
    module: str, missing: str, extra: str, flags: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", PROGRAM.format(module=module), missing, *flags.split()]
    (tmp_path / "points.tsv").write_text("system\tk\tbleu\tal\na\t1\t2\t3\n")
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "usage: mla-" in done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert missing in done.stderr
    assert f'install the extra {extra}: pip install -c constraints.txt ".[{extra}]" in a clone' in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_agents_of_a_sweep_are_those_of_the_package() -> None:
    assert set(AGENTS) == set(agents.__all__) - {"StreamingAgent"}


def test_a_file_name_that_is_too_long_is_reported(tmp_path: Path) -> None:
    message = r"^error: the file name is too long \(xxx+\.\.\., 300 bytes\): use at most 200 bytes$"
    with pytest.raises(UserError, match=message), user_errors(types=(OSError,)):
        (tmp_path / ("x" * 300)).write_text("")


def test_a_value_with_line_breaks_stays_on_the_line() -> None:
    with pytest.raises(UserError) as ending, user_errors():
        raise ValueError("a\n is missing: name another file\n")
    assert str(ending.value) == r"error: a\n is missing: name another file"
