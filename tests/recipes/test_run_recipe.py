"""A whole recipe with the real programs, on a corpus of noise."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mla_fairseq.cli import recipe
from tests.killing import descendants, runs
from tests.recipes.noise import make_corpus

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "run_recipe.py"
RECIPE = f"""
base: {ROOT}/configs/tiny.yaml
prepare: {{pairs: en-de, vocab_type: char}}
train: {{attn_type: cosformer, max_update: 60, warmup_updates: 5, max_tokens: 400, save_interval_updates: 5,
        log_interval: 1, encoder_layers: 1, encoder_embed_dim: 16, encoder_ffn_embed_dim: 16,
        encoder_attention_heads: 2, decoder_layers: 1, decoder_embed_dim: 16, decoder_ffn_embed_dim: 16,
        decoder_attention_heads: 2, conv_channels: 16}}
generate: {{beam: 2, max_len_a: 0, max_len_b: 10}}
"""


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = [
        sys.executable,
        str(SCRIPT),
        str(folder / "noise.yaml"),
        "--name",
        "noise",
        "--out",
        str(folder / "runs"),
        *arguments,
    ]
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(found, program: subprocess.Popen) -> None:
    end = time.monotonic() + 300
    while not found():
        assert program.poll() is None, program.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_recipe_continues_and_ends_with_scores(tmp_path, signal_):
    make_corpus(tmp_path / "corpora")
    (tmp_path / "noise.yaml").write_text(RECIPE)
    run, data = tmp_path / "runs" / "noise", str(tmp_path / "corpora")

    first = start(tmp_path, DATA=data)
    wait_for(lambda: (run / "checkpoints" / "checkpoint_last.pt").exists(), first)
    programs = descendants(first.pid)
    first.send_signal(signal_)
    assert ("run the same command again to continue" in first.communicate(timeout=60)[0]) == (signal_ != signal.SIGKILL)
    assert first.returncode != 0
    wait_for(lambda: not any(map(runs, programs)), second := start(tmp_path, DATA=data))
    assert json.loads((run / ".stage-train.json").read_text())["finished"] is None

    output = second.communicate(timeout=600)[0]
    assert second.returncode == 0, output
    assert "[prepare] done already" in output
    assert "[train] not finished" in output
    assert "not translated" not in output
    log = (run / "train.log").read_text()
    assert log.count("# session") == 2
    assert "Loaded checkpoint" in log[log.rindex("# session") :]
    result = json.loads((run / "result.json").read_text())
    assert (result["updates"], result["sentences"]) == (60, 4)
    assert set(result["attention"].values()) == {"cosformer"}
    assert min(result[key] for key in ("parameters", "train_words_per_second", "decode_words_per_second")) > 0
    assert (run / "training-curve.svg").exists()
    assert data not in json.dumps(result), "corpora are found through DATA, wherever they are"

    third = start(tmp_path, DATA=data)
    output = third.communicate(timeout=120)[0]
    assert output.count("done already") == 4
    assert "$ " not in output


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Call the function of ``mla-recipe``; return its output."""
    (tmp_path / "noise.yaml").write_text(RECIPE)
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("DATA", raising=False)

    def call(*arguments: str) -> str:
        recipe.run(recipe.build_parser().parse_args([str(tmp_path / "noise.yaml"), *arguments]))
        return capsys.readouterr().out

    return call


def test_a_dry_run_needs_no_data_and_leaves_no_file(run, tmp_path):
    shown = run("--dry-run", "--set", "generate.beam=3", "train.seed=9", "--out", str(tmp_path / "runs"))
    stages = [line for line in shown.splitlines() if line.startswith("#")]
    assert stages == ["# prepare", "# train", "# average", "# generate"]
    assert '--data "$DATA"' in shown and "--beam 3" in shown and "--seed 9" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["noise.yaml"]


def test_a_recipe_after_set_is_explained():
    with pytest.raises(ValueError, match=r"^no recipe is given: name its file before --set$"):
        recipe.run(recipe.build_parser().parse_args(["--set", "a=b", "configs/demo/st.yaml"]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param([], "DATA is not set: export DATA=", id="no-data"),
        pytest.param(["--dry-run", "--set", "train.atn_type=relu"], "did you mean attn_type?", id="unknown-flag"),
    ],
)
def test_a_mistake_is_reported_before_anything_runs(run, tmp_path, arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        run("--out", str(tmp_path / "runs"), *arguments)
    assert not (tmp_path / "runs").exists()
