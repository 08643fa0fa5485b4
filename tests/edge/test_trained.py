"""An exported model says what the trained model says; ``EDGE_CHECKPOINT`` names another one than the demo's."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import soundfile
import yaml

from mla_fairseq.edge.runtime.model import EdgeTranslator
from mla_fairseq.streaming import IncrementalSession, Translator, WaitKPolicy
from mla_fairseq.streaming.interface import StreamingModel
from tests.programs import ROOT, run

CHECKPOINT = Path(os.environ.get("EDGE_CHECKPOINT", ROOT / "runs/demo_simul/checkpoint_average.pt"))
DATA = CHECKPOINT.parents[1] / "data"
SPEECH = DATA / "demo_corpus/en-de/data/tst-COMMON"
SEGMENT = 4_480
K = 5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHECKPOINT.exists(), reason="the demo's model does not exist: make demo"),
]


def sentences() -> Iterator[np.ndarray]:
    """Yield the samples of each test sentence."""
    for row in yaml.safe_load((SPEECH / "txt/tst-COMMON.yaml").read_text(encoding="utf-8")):
        start, count = (round(row[name] * 16_000) for name in ("offset", "duration"))
        yield soundfile.read(SPEECH / "wav" / row["wav"], frames=count, start=start, dtype="int16")[0]


def emissions(model: StreamingModel) -> list[list[tuple[str, float]]]:
    """Return the words of every sentence with their times, in ms."""
    found = []
    for samples in sentences():
        session = IncrementalSession(model, WaitKPolicy(K))
        parts = [session.push(samples[start : start + SEGMENT]) for start in range(0, len(samples), SEGMENT)]
        found.append([(e.text, e.milliseconds) for part in [*parts, session.finish()] for e in part])
    return found


def test_the_words_of_all_test_sentences(tmp_path: Path) -> None:
    expected = emissions(Translator.load(CHECKPOINT, DATA / "demo/en-de"))
    for flags in ([], ["--int8"]):
        done = run("mla-export", CHECKPOINT, "--data", DATA / "demo/en-de", "--output", tmp_path / "model", flags)
        assert done.code == 0, done.err
        found = emissions(EdgeTranslator.load(tmp_path / "model"))
        if not flags:
            assert found == expected
    references = (SPEECH / "txt/tst-COMMON.de").read_text(encoding="utf-8").splitlines()
    exact, rounded = (
        sacrebleu.corpus_bleu([" ".join(text for text, _ in words) for words in each], [references]).score
        for each in (expected, found)
    )
    assert rounded > exact - 0.3
