"""The exported model of a run says what its sweep said, and what contradicts the sweep is reported."""

import json

from mla_fairseq.data.mustc import MuSTC
from mla_fairseq.speech import read_audio
from mla_fairseq.streaming import IncrementalSession, Translator, WaitKPolicy
from tests.programs import ROOT, run
from tests.streaming.conftest import data, save  # noqa: F401 -- fixtures

SCRIPT = ROOT / "examples/on_device/compare.py"


def write_sweep(folder, translator, segments, lagging):
    """Write the log of a sweep at one k, as PyTorch translates."""
    (folder / f"k{lagging}").mkdir(parents=True)
    with (folder / f"k{lagging}/instances.log").open("w", encoding="utf-8") as log:
        for index, one in enumerate(segments):
            session = IncrementalSession(translator, WaitKPolicy(lagging))
            found = [*session.push(read_audio(one.wav, one.start, one.length)), *session.finish()]
            words = [word for emission in found for word in emission.text.split()]
            row = {"index": index, "prediction": " ".join(words), "delays": [0.0] * len(words), "source_length": 1e4}
            row |= {"prediction_length": len(words), "reference": one.target, "source": [str(one.wav)]}
            log.write(json.dumps(row) + "\n")


def test_the_words_of_a_sweep(save, data, tmp_path):  # noqa: F811
    checkpoint, segments = save(), MuSTC(data).read("tst-COMMON")
    write_sweep(tmp_path / "simul", Translator.load(checkpoint, data), segments, 2)
    flags = ["--data-bin", data, "--data", data.parent, "--pair", data.name, "--sweep", tmp_path / "simul"]
    flags += ["--output", tmp_path / "device"]
    done = run(SCRIPT, checkpoint, flags, "--waitk-lagging", 2)
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "device/comparison.json").read_text(encoding="utf-8"))
    assert list(rows) == ["float32", "int8"]
    exact = rows["float32"]
    assert (exact["sentences"], exact["same"]) == (len(segments), len(segments))
    assert exact["bleu"] == exact["sweep_bleu"] and exact["real_time_factor"] > 0
    assert 0 < rows["int8"]["megabytes"] < exact["megabytes"]
    count = len(segments)
    line = f"device, float32: {exact['megabytes']:.1f} MB, {count} of {count} sentences with the words of the sweep"
    assert line in done.out

    done = run(SCRIPT, checkpoint, flags, "--waitk-lagging", 3)
    assert done.code == 1 and done.last_line.endswith("k3 is missing: run mla-sweep with --laggings 3")
    done = run(SCRIPT, checkpoint, flags, "--waitk-lagging", 2, "--split", "train")
    assert done.code == 1 and "is not of the split train: give another --split" in done.last_line
