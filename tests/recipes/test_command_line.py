"""``scripts/run_recipe.py`` without running anything."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs" / "mboshi_fr.yaml")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the script's own function on arguments; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA", raising=False)
    script = runpy.run_path(str(ROOT / "scripts" / "run_recipe.py"))

    def call(*arguments: str) -> str:
        script["run"](script["build_parser"]().parse_args(arguments))
        return capsys.readouterr().out

    return call


def test_a_dry_run_needs_no_data_and_leaves_no_file(run, tmp_path):
    shown = run(CONFIG, "--dry-run", "--threads", "1", "--name", "other", "--set", "decode.beam=3", "train.seed=9")
    assert [line for line in shown.splitlines() if line.startswith("#")] == [
        "# prepare",
        "# train",
        "# average",
        "# decode",
    ]
    assert '--data "$DATA" --pairs mb-fr' in shown
    assert "--beam 3" in shown
    assert "--seed 9" in shown
    assert "--save-dir runs/other/checkpoints" in shown
    assert shown.count("OMP_NUM_THREADS=1") == 3
    assert list(tmp_path.iterdir()) == []


def test_a_real_run_needs_data(run, tmp_path):
    with pytest.raises(ValueError, match=r"DATA is not set.*export DATA="):
        run(CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_the_keys_are_listed(run):
    assert "train.max_update = '<required>': number of updates" in run("--list-keys")


def test_a_recipe_must_be_named(run):
    with pytest.raises(ValueError, match=r"configs/demo\.yaml"):
        run()
