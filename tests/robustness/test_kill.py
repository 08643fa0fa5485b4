"""Preparation, training and recipe are killed at random moments; the same command makes what an undisturbed run makes.

KILLS=50 SEED=1 pytest -s -m slow tests/robustness/test_kill.py prints what 50 kills by each signal gave.
"""

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mla_fairseq.averaging import last_checkpoints
from mla_fairseq.cli.options import STOPPED
from tests.killing import adopts_orphans, needs_proc  # noqa: F401 -- a fixture
from tests.models.conftest import SIZES, TRAINING, write_corpus
from tests.models.test_resuming import mask_features
from tests.programs import ROOT
from tests.recipes.noise import make_corpus
from tests.robustness.disturbance import Command, disturb

KILLS, SEED = int(os.environ.get("KILLS", "4")), int(os.environ.get("SEED", "1"))
RECIPE = f"""
base: {ROOT}/configs/tiny.yaml
prepare: {{pairs: en-de, vocab_type: char, workers: 2}}
train: {{attn_type: cosformer, dropout: 0.1, max_update: 12, warmup_updates: 5, max_tokens: 400,
        save_interval_updates: 3, log_interval: 1, encoder_layers: 1, encoder_embed_dim: 16, encoder_ffn_embed_dim: 16,
        encoder_attention_heads: 2, decoder_layers: 1, decoder_embed_dim: 16, decoder_ffn_embed_dim: 16,
        decoder_attention_heads: 2, conv_channels: 16}}
average: {{last: 2}}
generate: {{beam: 2, max_len_a: 0, max_len_b: 10}}
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tensors(value: Any, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the bytes of every tensor in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        yield name, value.numpy().tobytes()
    elif isinstance(value, dict | list | tuple):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(one, f"{name}.{key}")


def checkpoint(path: Path) -> dict[str, Any]:
    """Return the weights and the optimizer's state of a checkpoint, and the number of its updates."""
    state = torch.load(path, weights_only=True)
    parts = {key: state[key] for key in ("model", "last_optimizer_state") if key in state}
    return {**dict(tensors(parts, "")), "updates": state["optimizer_history"][-1]["num_updates"]}


def training(folder: Path) -> dict[str, Any]:
    """Return the two last checkpoints of a training; a kill may leave more of the older ones."""
    found = {path.name: checkpoint(path) for path in last_checkpoints(folder, 2)}
    return {f"{name} {key}": value for name, state in found.items() for key, value in state.items()}


def whole_run(folder: Path) -> dict[str, Any]:
    """Return what the stages of a recipe have made."""
    run, translations = folder / "kill", folder / "kill" / "generate-tst-COMMON_st.txt"
    lines = [line for line in translations.read_text().splitlines() if re.match(r"[STHDP]-|Generate", line)]
    average = checkpoint(run / "checkpoint_average.pt")
    records = re.compile(r"(\.stage-.*\.json|\.lock)$")  # times and processes
    data = {name: data for name, data in contents(folder / "data").items() if not records.search(name)}
    return {**data, **training(run / "checkpoints"), "average": average, "lines": lines}


def preparation(root: Path) -> Command:
    make_corpus(root / "corpora", train=200)
    words = ["mla-prepare", "--data", root / "corpora", "--pairs", "en-de", "--vocab-type", "char", "--workers", 2]
    return Command([*words, "--cmvn", "global", "--output", "FOLDER"], contents)


def training_alone(root: Path) -> Command:
    (root / "data").mkdir()
    mask_features(write_corpus(root / "data", {"train": 40, "valid": 4}))
    words = ["fairseq-train", root / "data", "--task", "speech_to_text_mla"]
    words += ["--arch", "s2t_transformer_mla", "--attn-type", "cosformer", "--dropout", 0.1, "--max-update", 17]
    words += ["--save-interval-updates", 3, "--keep-interval-updates", 3, "--save-dir", "FOLDER"]
    return Command([*words, *SIZES, *TRAINING, "--num-workers", 2], training)


def recipe(root: Path) -> Command:
    make_corpus(root / "corpora")
    (root / "kill.yaml").write_text(RECIPE)
    os.environ["DATA"] = str(root / "corpora")
    return Command(["mla-recipe", root / "kill.yaml", "--name", "kill", "--out", "FOLDER"], whole_run, STOPPED)


@needs_proc
@pytest.mark.slow
@pytest.mark.usefixtures("adopts_orphans")
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("command", [preparation, training_alone, recipe])
def test_a_command_that_is_killed_again_and_again_makes_the_same(
    tmp_path: Path, command: Callable[[Path], Command], signal_: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA", "")  # set by recipe()
    outcome = disturb(command(tmp_path), tmp_path / "killed", KILLS, signal_, SEED)
    print(f"\n{command.__name__}, {signal_.name}: {outcome}")
    assert outcome.kills == KILLS and outcome.finished
    assert not outcome.failed and not outcome.different and not outcome.left
