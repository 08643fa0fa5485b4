"""Every READ/WRITE rule through the commands that users type: training, batch decoding, SimulEval."""

import json
from pathlib import Path

import pytest

from mla_fairseq.models.simul import SIMUL_TYPES
from tests.programs import ROOT, run
from tests.streaming.conftest import ARCH, SIZES
from tests.streaming.test_agent import LONGEST, simuleval

LATENCY = (
    "--criterion latency_augmented_label_smoothed_cross_entropy_mla --latency-avg-weight 0.1 --latency-var-weight 0.1"
)


@pytest.mark.slow
@pytest.mark.parametrize("cross", ["softmax", "relu"])
@pytest.mark.parametrize("simul_type", SIMUL_TYPES)
def test_a_rule_trains_decodes_and_runs(data: Path, tmp_path: Path, simul_type: str, cross: str) -> None:
    wait = simul_type.startswith("waitk")
    criterion = "--criterion label_smoothed_cross_entropy" if wait else LATENCY
    task = [data, "--user-dir", "mla_fairseq", "--task", "speech_to_text_mla", "--config-yaml", "config_st.yaml"]
    model = [*SIZES.split(), "--arch", ARCH, "--simul-type", simul_type, "--cross-attn-type", cross, *criterion.split()]
    length = ["--max-update", 4, "--max-tokens", 400, "--lr", 1e-3, "--optimizer", "adam", "--disable-validation"]
    saved = [
        "--train-subset",
        "train_st",
        "--save-dir",
        tmp_path,
        "--no-epoch-checkpoints",
        "--cpu",
        "--num-workers",
        0,
    ]
    done = run("fairseq-train", task, model, length, saved, cwd=ROOT)
    assert done.code == 0, done.err[-3000:]
    checkpoint, log = tmp_path / "checkpoint_last.pt", tmp_path / "batch.log"
    decode = ["--gen-subset", "tst-COMMON_st", "--path", checkpoint, *LONGEST, "--cpu", "--num-workers", 0]
    done = run("fairseq-generate", task, decode, "--beam", 3, cwd=ROOT)
    assert done.code == 0, done.err[-3000:]
    rule = ["--simul-waitk-lagging", 2] if wait else []
    done = run("fairseq-generate", task, decode, "--beam", 1, rule, "--simul-log", log, cwd=ROOT)
    assert done.code == 0, done.err[-3000:]
    batch = {line["index"]: line for line in map(json.loads, log.read_text().splitlines())}
    agent = ("--agent-class", f"mla_fairseq.agents.{'WaitKAgent' if wait else 'MonotonicAgent'}")
    wavs = sorted((data / "data/tst-COMMON/wav").glob("*.wav"))
    flags = ["--waitk-lagging", 2] if wait else []
    lines = simuleval(tmp_path / "agent", data, checkpoint, wavs, *flags, agent=agent)
    assert [line["prediction"] for line in lines] == [batch[line["index"]]["prediction"] for line in lines]
