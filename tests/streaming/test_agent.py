"""Agents in the loop of SimulEval, and the same translations from fairseq-generate in one batch."""

import json
import re
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from mla_fairseq.agents import AlignAttAgent, EDAttAgent, HoldAgent, WaitKAgent
from mla_fairseq.agents.recordings import check_sources
from mla_fairseq.errors import UserError
from mla_fairseq.speech.resample import Samples
from tests.programs import ROOT, Done, run
from tests.streaming.conftest import RATE, noise

LONGEST = ["--max-len-a", "0.05", "--max-len-b", "5"]  # a limit for each sentence, which some reach


def simuleval(
    folder: Path, data: Path, checkpoint: Path, wavs: list[Path], *flags: object, agent: tuple[str, object] = ()
) -> list[dict]:
    """Run an agent; return the lines of SimulEval's log."""
    done = attempt(folder, data, checkpoint, wavs, *flags, agent=agent)
    assert done.code == 0, done.err[-3000:]
    return [json.loads(line) for line in (folder / "out/instances.log").read_text().splitlines()]


def attempt(
    folder: Path, data: Path, checkpoint: Path, wavs: list[Path], *flags: object, agent: tuple[str, object] = ()
) -> Done:
    folder.mkdir(exist_ok=True)
    (folder / "source").write_text("".join(f"{wav}\n" for wav in wavs))
    (folder / "target").write_text("ein haus am see\n" * len(wavs))
    agent = agent or ("--agent-class", "mla_fairseq.agents.WaitKAgent")
    lists = ["--source", folder / "source", "--target", folder / "target", "--output", folder / "out"]
    model = ["--model-path", checkpoint, "--data-bin", data, *LONGEST]
    return run("simuleval", *agent, *model, *lists, "--source-segment-size", 280, *flags, cwd=ROOT)


@pytest.fixture(scope="module")
def wavs(data: Path) -> list[Path]:
    return sorted((data / "data/tst-COMMON/wav").glob("*.wav"))


MONOTONIC = "--simul-type infinite_lookback_fixed_pre_decision --cross-attn-type relu"


@pytest.mark.parametrize(
    "flags", ["", "--attn-type cosformer", MONOTONIC], ids=["softmax", "cosformer", "monotonic-relu"]
)
def test_the_agent_emits_what_batch_decoding_logs(
    save, data: Path, wavs: list[Path], tmp_path: Path, flags: str
) -> None:
    checkpoint, rule = save(flags), ["--waitk-lagging", 2]
    agent, simul = ("--agent-class", "mla_fairseq.agents.WaitKAgent"), ["--simul-waitk-lagging", 2]
    if flags == MONOTONIC:
        agent, rule, simul = ("--agent-class", "mla_fairseq.agents.MonotonicAgent"), [], []
    agent_log = simuleval(tmp_path / "agent", data, checkpoint, wavs, *rule, agent=agent)
    log = tmp_path / "batch.log"
    task = [data, "--user-dir", "mla_fairseq", "--task", "speech_to_text_mla", "--config-yaml", "config_st.yaml"]
    decode = ["--gen-subset", "tst-COMMON_st", "--path", checkpoint, "--beam", 1, *LONGEST, "--cpu"]
    done = run("fairseq-generate", task, decode, simul, "--simul-log", log, cwd=ROOT)
    assert done.code == 0, done.err[-3000:]
    batch = {line["index"]: line for line in map(json.loads, log.read_text().splitlines())}
    assert len(agent_log) == len(batch) == len(wavs)
    assert not any("elapsed" in line for line in batch.values()), "not measured; OmniSTEval refuses an empty list"
    for line in agent_log:
        assert batch[line["index"]]["prediction"] == line["prediction"]
        # batch decoding knows the length of a file only from its frames of 10 ms
        assert np.allclose(batch[line["index"]]["delays"], line["delays"], rtol=0, atol=10)
        early = [delay for delay in line["delays"] if delay < line["source_length"] - 10]
        assert batch[line["index"]]["delays"][: len(early)] == early
    assert any(line["delays"][0] < line["source_length"] for line in agent_log)


def test_two_runs_are_identical_and_sentences_are_independent(
    save, data: Path, wavs: list[Path], tmp_path: Path
) -> None:
    whole = simuleval(tmp_path / "whole", data, save(), wavs)
    alone = simuleval(tmp_path / "alone", data, save(), wavs[::-1])[::-1]
    assert [(line["prediction"], line["delays"]) for line in whole] == [
        (line["prediction"], line["delays"]) for line in alone
    ]


@pytest.mark.parametrize(
    "agent",
    ["AlignAttAgent --frame-num 2 --attn-layer 1 --attn-heads 0", "EDAttAgent", "LocalAgreementAgent --beam 2",
     "HoldAgent --hold 2", "OfflineWaitKAgent --waitk-lagging 2"],
)  # fmt: skip
def test_an_offline_model_emits_early(save, data: Path, wavs: list[Path], tmp_path: Path, agent: str) -> None:
    name, *flags = agent.split()
    agent = ("--agent-class", f"mla_fairseq.agents.{name}")
    runs = [
        simuleval(tmp_path / str(i), data, save("--encoder-chunk-size 0"), wavs, *flags, agent=agent) for i in range(2)
    ]
    first, second = ([(line["prediction"], line["delays"]) for line in lines] for lines in runs)
    assert first == second
    assert all(line["prediction"] for line in runs[0] if line["source_length"] > 100)


def test_an_agent_may_be_a_file_and_resamples(save, data: Path, tmp_path: Path) -> None:
    """Audio at 8 kHz lacks the upper frequencies, so the words may differ, but they exist."""
    path = tmp_path / "slow.wav"
    soundfile.write(path, soxr.resample(noise(2.0, 3), RATE, 8_000), 8_000)
    agent = ("--agent", ROOT / "examples/simulst/wait_k_agent.py")
    done = attempt(tmp_path / "file", data, save(), [path], agent=agent)
    assert done.code == 0, done.err[-3000:]
    assert json.loads((tmp_path / "file/out/instances.log").read_text())["prediction"]


@pytest.mark.parametrize("what", ["stereo", "utterance", "offline", "scores"])
def test_an_error_is_one_line(save, data: Path, tmp_path: Path, what: str) -> None:
    path, checkpoint = tmp_path / "a.wav", save()
    soundfile.write(path, noise(1.0), RATE)
    if what == "stereo":
        soundfile.write(path, np.stack([noise(1.0)] * 2, axis=1), RATE)
        message = f"error: {path}: 2 channels, but one is needed: convert it"
    elif what == "utterance":
        data = Path(shutil.copytree(data, tmp_path / "data"))
        config = (data / "config_st.yaml").read_text().replace("global_cmvn\n", "utterance_cmvn\n")
        (data / "config_st.yaml").write_text(config)
        message = "transforms features by utterance_cmvn"
    elif what == "scores":
        state = torch.load(checkpoint, weights_only=False)
        state["model"]["encoder.layer_norm.weight"] *= 1e30
        torch.save(state, checkpoint := tmp_path / "huge.pt")
        message = "error: the scores of the model are not finite: use another checkpoint"
    else:
        checkpoint = save("--encoder-chunk-size 0")
        message = "error: this model has a full-context encoder"
    done = attempt(tmp_path / "run", data, checkpoint, [path])
    assert done.code == 1 and message in done.last_line, done.err[-2000:]


def test_recordings_and_lists_are_checked_before_simuleval_reads_them(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    soundfile.write(good, noise(0.5), RATE)
    soundfile.write(bad, np.array([0.1, np.nan, 0.1], np.float32), RATE, subtype="FLOAT")
    (tmp_path / "source").write_text(f"{good}\n{bad}\n{good}\n")
    (tmp_path / "target").write_text("a\nb\nc\n")
    (tmp_path / "short").write_text("a\nb\n")
    usual = {"source": str(tmp_path / "source"), "target": str(tmp_path / "target"), "source_segment_size": 280}
    check_sources(Namespace(source_segment_size=280))
    check_sources(Namespace(**usual, start_index=2, end_index=-1))
    check_sources(Namespace(**usual, start_index=0, end_index=1))
    for changes, message in (
        ({}, rf"{bad}: not finite at 0\.00 s: repair the recording, or leave it out"),
        ({"source_segment_size": 0}, "--source-segment-size is 0: give at least 1 ms, such as 280"),
        ({"target": str(tmp_path / "short")}, "source has 3 lines, but --target .*short has 2: give the pair"),
        ({"target": None}, "--source needs a file of references"),
        ({"source": str(tmp_path / "no")}, "no is missing: correct --source"),
        ({"source": str(tmp_path / "short"), "target": str(tmp_path / "short")}, "^a is missing: correct the name"),
    ):
        with pytest.raises(ValueError, match=message):
            check_sources(Namespace(**{**usual, **changes}))


@pytest.mark.parametrize(
    ("agent", "model", "flags", "message"),
    [
        (AlignAttAgent, "", "--attn-layer 2", "--attn-layer must be an integer within 0 and 1, but is 2"),
        (AlignAttAgent, "", "--attn-heads 2", "--attn-heads must be a list of integers within 0 and 1, but is [2]"),
        (HoldAgent, "--simul-type infinite_lookback", "", "use MonotonicAgent"),
        (EDAttAgent, "--simul-type infinite_lookback", "", "use MonotonicAgent"),
        (WaitKAgent, "--encoder-chunk-size 0", "", "such as AlignAttAgent"),
        (WaitKAgent, "--encoder-chunk-size 0", "--waitk-lagging 2", "such as AlignAttAgent"),
    ],
)
def test_agents_name_flags_and_agents(save, data: Path, agent, model: str, flags: str, message: str) -> None:
    """The sessions that they build name arguments and classes of the Python API."""
    parser = ArgumentParser()
    agent.add_args(parser)
    args = parser.parse_args(["--model-path", str(save(model)), "--data-bin", str(data), *flags.split()])
    with pytest.raises(UserError, match=re.escape(message)):
        agent(args)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 48_000])
def test_resampling_does_not_depend_on_segments(rate: int) -> None:
    samples = soxr.resample(noise(1.0, 3).astype(np.float32) / 2**15, RATE, rate)
    outputs = []
    for size in (rate, rate // 7, 333):
        stream = Samples()
        taken = []
        for piece in np.split(samples, range(size, len(samples), size)):
            stream.add(piece.tolist(), rate)
            taken.append(stream.take(final=False))
        taken.append(stream.take(final=True))
        outputs.append(np.concatenate(taken))
    assert all(np.array_equal(outputs[0], output) for output in outputs[1:])
    assert abs(len(outputs[0]) - RATE) <= 1


def test_the_sample_rate_must_not_change() -> None:
    stream = Samples()
    stream.add([0.0, 0.1], 16_000)
    with pytest.raises(ValueError, match="but is 8000 after 16000"):
        stream.add([0.0], 8_000)
