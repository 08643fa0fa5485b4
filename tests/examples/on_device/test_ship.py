"""The demo is made from a run: the sentences by the rule, the folder whole, twice the same."""

import argparse
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from examples.on_device import ship
from mla_fairseq.data.corpus import Segment
from mla_fairseq.data.layouts import open_corpus
from mla_fairseq.edge.runtime.demo import SENTENCES, sentences
from mla_fairseq.edge.runtime.folder import load_folder
from mla_fairseq.speech import read_audio
from mla_fairseq.speech.audio import wav_bytes
from tests.programs import ROOT
from tests.streaming.conftest import data, save  # noqa: F401 -- fixtures

CHECKPOINT = Path(os.environ.get("EDGE_CHECKPOINT", ROOT / "runs/demo_simul/checkpoint_average.pt"))


def spoken(source: str, segment: Segment | None = None) -> ship.Spoken:
    if segment is None:
        segment = Segment(source, Path("a.wav"), 0, 1, "s", source, "", 1)
    samples = np.arange(-3, 900, dtype=np.int16)
    return ship.Spoken(segment, samples, [(0.5, "Ein"), (0.75, "Wort.")])


def test_each_sentence_has_the_most_new_words() -> None:
    found = [spoken(text) for text in ("A cat sat.", "The cat sat down.", "Dogs bark at cats.", "The cat sat. A cat?")]
    assert [one.segment.source for one in ship.choose(found)] == [
        "The cat sat down.",
        "Dogs bark at cats.",
        "A cat sat.",
    ]


def test_too_few_sentences_are_reported() -> None:
    with pytest.raises(ValueError, match="2 sentences are suitable, but 3 are needed: train the model longer"):
        ship.choose([spoken("a"), spoken("b")])


def test_sentences_of_a_suitable_length_are_right_in_both_precisions(monkeypatch, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(np.zeros(80_000, np.int16)))
    right = [(0.5, "Ein"), (0.75, "Wort.")]
    emitted = {
        1.9: (right, right),  # too short
        2.0: (right, right),
        2.1: (right, [(0.5, "Ein"), (1.0, "Wort.")]),  # float32 is later
        2.2: ([(0.5, "Ein Wort")], right),
        4.0: (right, right),
        4.1: (right, right),  # too long
    }
    segments = [Segment(str(s), path, 0, round(s * 16_000), "s", "A word.", "Ein Wort.", 1) for s in emitted]
    monkeypatch.setattr(ship.EdgeTranslator, "load", lambda folder: folder)
    monkeypatch.setattr(ship, "emitted", lambda model, samples: emitted[len(samples) / 16_000][model == "float32"])
    assert [one.segment.id for one in ship.candidates(segments, "int8", "float32")] == ["2.0", "4.0"]


@pytest.fixture
def run(save, data, tmp_path: Path) -> Path:  # noqa: F811
    """The run of a recipe, with a model of random weights."""
    folder = tmp_path / "runs/demo_talks"
    folder.mkdir(parents=True)
    for name in ("demo", "demo_corpus"):
        (folder.parent / "data" / name).mkdir(parents=True)
        (folder.parent / "data" / name / "en-de").symlink_to(data)
    (folder / "checkpoint_average.pt").write_bytes(save().read_bytes())
    (folder / ".stage-train.json").write_text('{"commit": "1234567"}', encoding="utf-8")
    return folder


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Spare the float32 graphs, which only ``candidates`` reads; the list gets every precision."""
    done, write = [], ship.write_folder

    def write_folder(args: argparse.Namespace, precision: str) -> Path:
        done.append(precision)
        return write(args, precision) if precision == "int8" else args.output / precision

    monkeypatch.setattr(ship, "write_folder", write_folder)
    return done


def test_a_model_without_suitable_sentences_writes_nothing(run: Path, data, tmp_path, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr(ship, "write_folder", lambda *_: tmp_path)
    monkeypatch.setattr(ship, "candidates", lambda *_: [])
    with pytest.raises(SystemExit, match="error: 0 sentences are suitable, but 3 are needed: train the model longer"):
        ship.main([str(run), "--output", str(tmp_path / "demo")])
    assert not (tmp_path / "demo").exists()


def test_the_folder_of_the_demo(run, exports, data, tmp_path, monkeypatch) -> None:  # noqa: F811
    rows = [
        ship.Spoken(one, (read_audio(one.wav, one.start, one.length) * 2**15).astype(np.int16), [(0.5, one.id)])
        for one in open_corpus(data).read("tst-COMMON")
        if one.length > 8_000
    ]
    monkeypatch.setattr(ship, "candidates", lambda *_: rows)
    output, files = tmp_path / "demo", []
    for _ in range(2):  # the second replaces the first
        ship.main([str(run), "--output", str(output)])
        files.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert exports == ["int8", "float32"] * 2
    assert files[0] == files[1] and "encoder.int8.onnx" in files[0] and "encoder.onnx" not in files[0]
    assert set(load_folder(output, "speech-to-text").config["files"]) == set(files[0]) - {"config.json"}
    chosen = {one.segment.source: one for one in ship.choose(rows)}
    for one in sentences(output):
        assert np.array_equal(read_audio(one.path) * 2**15, chosen[one.source].samples)
        assert one.words == chosen[one.source].words
    facts = json.loads(files[0][SENTENCES])
    assert facts["command"] == "python -m examples.on_device.ship runs/demo_talks"
    assert facts["model"] == {"updates": 0, "seed": 1, "commit": "1234567"}
    assert re.fullmatch(r"[0-9a-f]{7,}(-dirty)?", facts["commit"])


@pytest.mark.slow
@pytest.mark.skipif(not CHECKPOINT.exists(), reason="the demo's model does not exist: make demo")
def test_the_sentences_of_a_trained_model(tmp_path: Path) -> None:
    ship.main([str(CHECKPOINT.parent), "--output", str(tmp_path / "demo")])
    references = {
        one.source: one.target for one in open_corpus(CHECKPOINT.parents[1] / "data/demo_corpus/en-de").read(ship.SPLIT)
    }
    found = sentences(tmp_path / "demo")
    assert len(found) == 3
    for one in found:
        assert " ".join(text for _, text in one.words) == references[one.source]
        assert 2 <= len(read_audio(one.path)) / 16_000 <= 4
