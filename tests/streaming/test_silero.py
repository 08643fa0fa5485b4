"""silero-vad as a detector: it finds speech in noise, is cut anywhere, and leaves torch alone."""

import sys
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import torch

from mla_fairseq.errors import UserError
from mla_fairseq.streaming import EnergyDetector, IncrementalSession, LongSession, SileroDetector, WaitKPolicy

MISSING = [name for name in ("onnxruntime", "silero_vad") if find_spec(name) is None]
installed = pytest.mark.skipif(bool(MISSING), reason=f"needs the extra vad ({', '.join(MISSING)})")
speaks = pytest.mark.skipif(find_spec("espeakng_loader") is None, reason="needs the extra demo (espeakng_loader)")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Two sentences (N,) float32 after 2 s, with 1 s between and after them, in noise of -50 dB."""
    from tests.evaluation.test_recognition import TEXTS, say

    parts = [np.zeros(32_000)]
    for text in TEXTS[:2]:
        samples, rate = say(text)
        places = np.arange(0, len(samples) - 1, rate / 16_000)
        parts += [np.interp(places, np.arange(len(samples)), samples), np.zeros(16_000)]
    stream = np.concatenate(parts)
    noise = np.random.default_rng(1).standard_normal(len(stream)) * 10 ** (-50 / 20)
    return (stream + noise).astype(np.float32)


def answers(detector: SileroDetector | EnergyDetector, samples: np.ndarray) -> list[bool]:
    return [detector.push(block) for block in samples[: len(samples) // 640 * 640].reshape(-1, 640)]


@installed
@speaks
def test_it_finds_speech_in_noise(speech: np.ndarray) -> None:
    threads = torch.get_num_threads()
    found = answers(SileroDetector(), speech)
    assert torch.get_num_threads() == threads and "silero_vad" not in sys.modules
    changes = [place * 0.04 for place, (a, b) in enumerate(pairwise(found)) if a != b]
    assert not found[0] and not found[-1]
    assert 1.9 < changes[0] < 2.3
    assert len(speech) / 16_000 - 1.4 < changes[-1] < len(speech) / 16_000 - 0.7
    assert sum(found) > 0.7 * (len(speech) / 640 - 100)


@installed
@speaks
def test_a_fork_continues_alone(speech: np.ndarray) -> None:
    detector = SileroDetector()
    before = answers(detector, speech[:48_000])
    fork = detector.fork()
    after = answers(detector, speech[48_000:])
    assert answers(fork, speech[48_000:]) == after
    assert before + after == answers(SileroDetector(), speech)


@installed
@speaks
def test_a_long_session_uses_it(translator, speech: np.ndarray) -> None:
    session = LongSession(
        IncrementalSession(translator("--attn-type relu"), WaitKPolicy(2)), SileroDetector(), pause=0.3
    )
    found = [e for part in np.split(speech, [20_000, 50_001]) for e in session.push(part)] + session.finish()
    assert {e.stretch for e in found if e.text} == {0, 1}


@pytest.mark.parametrize("name", ["onnxruntime", "silero_vad"])
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if name == "onnxruntime" or "onnxruntime" in MISSING:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    else:
        monkeypatch.setattr("mla_fairseq.streaming.silero.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"install the extra vad: pip install -c constraints.txt"):
        SileroDetector()
