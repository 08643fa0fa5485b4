"""An exported voice says what the trained model says; ``EDGE_VOICE`` names another one than the demo's."""

import csv
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.models.text_to_speech.tacotron2 import Prenet
from numpy.typing import NDArray
from torch import Tensor

from mla_fairseq.edge.runtime.speaker import EdgeSpeaker, Utterance
from mla_fairseq.synthesis.generator import Utterance as Decoded
from mla_fairseq.synthesis.generator import decode, refine
from mla_fairseq.synthesis.speaker import Speaker
from tests.programs import ROOT, run

CHECKPOINT = Path(os.environ.get("EDGE_VOICE", ROOT / "runs/demo_tts/checkpoint_average.pt"))
DATA = CHECKPOINT.parents[1] / "data/demo_tts"
SENTENCES = 8

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHECKPOINT.exists(), reason="the demo's voice does not exist: make demo-tts"),
]


def decoded(package: Speaker, model: EdgeSpeaker, symbols: list[str], monkeypatch: pytest.MonkeyPatch) -> Decoded:
    """Decode with the package, under the dropout that the runtime draws from seed 1."""
    drawn = model.say(symbols)

    def forward(prenet: Prenet, x: Tensor) -> Tensor:
        for layer, factor in zip(prenet.layers, torch.from_numpy(drawn._keep()), strict=True):
            x = layer(x) * factor
        return x

    monkeypatch.setattr(Prenet, "forward", forward)
    tokens = package.task.source_dictionary.encode_line(" ".join(symbols), add_if_not_exist=False).long()
    sample = {"src_tokens": tokens.unsqueeze(0), "src_lengths": torch.tensor([len(tokens)])}
    return decode(package.model, sample, package.generator.limits)[0]


def spoken(model: EdgeSpeaker, symbols: list[str], seed: int = 1) -> tuple[NDArray, Utterance]:
    utterance = model.say(symbols, seed=seed)
    return np.concatenate(list(utterance)), utterance


def difference(found: NDArray, expected: NDArray) -> float:
    """Return the mean difference of log-mel frames, up to the end of the shorter spectrogram."""
    length = min(len(found), len(expected))
    return float(np.abs(found[:length] - expected[:length]).mean())


def test_the_spectrograms_of_test_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = {}
    for name, flags in {"exact": [], "rounded": ["--int8"]}.items():
        done = run("mla-export", CHECKPOINT, "--data", DATA, "--output", tmp_path / name, flags)
        assert done.code == 0, done.err
        models[name] = EdgeSpeaker.load(tmp_path / name)
    with (DATA / "tst-COMMON.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:SENTENCES]
    package, times = Speaker(CHECKPOINT, DATA), {"package": 0.0, "exact": 0.0, "rounded": 0.0}
    exact: list[float] = []
    rounded: list[float] = []
    seeds: list[float] = []
    for row in rows:
        symbols, started = row["tgt_text"].split(), time.thread_time()
        reference = decoded(package, models["exact"], symbols, monkeypatch)
        times["package"] += (time.thread_time() - started) / len(reference.frames)
        frames = {}
        for name, model in models.items():
            started = time.thread_time()
            frames[name], utterance = spoken(model, symbols)
            times[name] += (time.thread_time() - started) / utterance.steps
            assert utterance.ended == reference.ended
            assert abs(utterance.steps - len(reference.frames)) <= 0.1 * utterance.steps
        expected = package.generator.denormalize(refine(package.model, [reference])[0]).numpy()
        # frames are fed back, so that rounding grows, up to another course of the voice after some seconds
        assert difference(frames["exact"][:40], expected[:40]) < 1e-4
        exact.append(difference(frames["exact"], expected))
        rounded.append(difference(frames["rounded"], expected))
        seeds.append(difference(spoken(models["exact"], symbols, seed=2)[0], expected))
    milliseconds = {name: 1000 * seconds / len(rows) for name, seconds in times.items()}
    means = {"float32": np.mean(exact), "8 bits": np.mean(rounded), "another seed": np.mean(seeds)}
    print(f"ms a step {milliseconds}; differences of log-mel frames {means}")
    assert np.mean(exact) < np.mean(seeds) / 4
    assert np.mean(rounded) < np.mean(seeds), "8 bits must cost less than another dropout"
    assert milliseconds["rounded"] < milliseconds["package"] / 3
