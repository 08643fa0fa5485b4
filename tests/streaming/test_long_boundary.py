"""Long sessions of models with a boundary output: its speech output alone, snapshots, offline policies."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from mla_fairseq.streaming import (
    AlignAttPolicy,
    Emission,
    EnergyDetector,
    LocalAgreementPolicy,
    LongSession,
    OfflineSession,
    Session,
)
from mla_fairseq.streaming.frontend import FeatureStream
from tests.streaming.conftest import RATE
from tests.streaming.test_long import SESSIONS, SHORT, STREAM, Script, Spy, hiss, loud_end, run, voice, words

BEGIN = {
    **{name: SESSIONS[name] for name in ("wait-k", "monotonic", "hold")},
    "alignatt": (12, lambda translator: OfflineSession(translator(), AlignAttPolicy(2), SHORT)),
    "agreement": (12, lambda translator: OfflineSession(translator(), LocalAgreementPolicy(), SHORT)),
}
OFFLINE = ["hold", "alignatt", "agreement"]


class Fitted:
    """A speech output: a linear map of encoder states, fitted to the loudness of the stream; no sentence ends."""

    def __init__(self, session: Session) -> None:
        translator = session.translator
        frames = torch.from_numpy(FeatureStream(translator.normalisation).push(STREAM, final=True))[None]
        with torch.no_grad():
            states = translator.model.encoder(frames, torch.tensor([frames.shape[1]]))["encoder_out"][0][:, 0]
        blocks = STREAM[: len(STREAM) // 640 * 640].reshape(-1, 640).astype(np.float32)
        loud = torch.from_numpy((blocks.std(1) > 300).astype(np.float32))
        known = min(len(states), len(loud))
        # singular, for the states are normalised; torch's default driver then depends on what its memory held before
        self.weights = torch.linalg.lstsq(self.extend(states[:known]), loud[:known, None], driver="gelsd").solution

    def extend(self, states: torch.Tensor) -> torch.Tensor:
        return torch.cat((states, torch.ones_like(states[..., :1])), -1)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        speech = 20 * ((self.extend(states) @ self.weights) - 0.5)
        return torch.cat((torch.full_like(speech, -9.0), speech), -1)


@pytest.fixture
def bounded(translator, request: pytest.FixtureRequest):
    """``bounded(name, answer)``: segment and session of a model whose encoder has a boundary output."""

    def bounded(name: str, answer=None) -> tuple[int, Session]:
        segment, begin = BEGIN[name]
        session = begin(translator)
        encoder = session.translator.model.encoder
        encoder.boundary = Script(answer or Fitted(session))
        request.addfinalizer(lambda: setattr(encoder, "boundary", None))  # sessions of other tests share the model
        return segment, begin(translator)

    return bounded


def check_slices(session: Spy, begin: Session, stream: np.ndarray, found: list[Emission], segment: int) -> None:
    """Check that every stretch has the emissions of a session on its samples."""
    for stretch, (start, stop) in enumerate(session.slices):
        blocks = [640 * segment] * ((stop - start) // (640 * segment))
        alone = run(begin.snapshot(), stream[start:stop], blocks)
        assert [(e.text, e.states) for e in found if e.stretch == stretch] == [(e.text, e.states) for e in alone]


@pytest.mark.parametrize("name", ["wait-k", *OFFLINE])
def test_the_speech_output_alone_finds_the_stretches(bounded, name: str) -> None:
    segment, begin = bounded(name)
    session = Spy(begin, segment=segment)
    assert session.detector is None
    found = run(session, STREAM)
    assert {emission.stretch for emission in found if emission.text} == {0, 1, 2}
    check_slices(session, begin, STREAM, found, segment)
    late = 0.16 + (6 + 4 + segment) * 0.04  # the pause, states that are judged later, chunk and segment
    spoken = [(0.31, 1.41), (1.66, 2.56), (3.36, 5.39)]
    for (start, stop), (onset, end) in zip(session.slices, spoken, strict=True):
        assert 0.02 <= onset - start / RATE <= 0.12
        assert 0.12 <= stop / RATE - end <= late + 0.04 or stop == len(STREAM)


@pytest.mark.parametrize("name", OFFLINE)
def test_offline_policies_are_cut_at_the_ends_of_sentences(bounded, name: str) -> None:
    segment, begin = bounded(name, loud_end)
    stream = np.concatenate([hiss(0.04), voice(6, 7)])
    session = Spy(begin, segment=segment)
    found = run(session, stream)
    assert len(session.slices) > 2 and session.slices[-1][1] == len(stream)
    assert {emission.stretch for emission in found if emission.text} == set(range(len(session.slices)))
    check_slices(session, begin, stream, found, segment)
    for (start, stop), (after, _) in pairwise(session.slices):
        assert start + 10 * 640 <= after <= stop  # no sample between the sentences is lost


@pytest.mark.parametrize(
    ("name", "answer", "seconds", "detector"),
    [
        pytest.param("wait-k", None, 1.0, None, id="in-a-stretch"),
        pytest.param("wait-k", None, 3.25, None, id="listening"),
        pytest.param("wait-k", loud_end, 1.0, EnergyDetector(), id="with-a-detector"),
        pytest.param("monotonic", loud_end, 4.1, None, id="monotonic"),
        pytest.param("alignatt", None, 1.0, None, id="alignatt"),
    ],
)
def test_a_snapshot_restores_the_boundary_output(bounded, name: str, answer, seconds: float, detector) -> None:
    """Taken in the middle of a stretch, or while the encoder listens; any cutting afterwards gives the same."""
    segment, begin = bounded(name, answer)
    session = LongSession(begin, detector and detector.fork(), segment=segment)
    cut = round(seconds * RATE)
    before = session.push(STREAM[:cut])
    assert (session.session is None) is (seconds == 3.25)
    source = session.session.source if session.session else session.ear
    assert len(source.judge.window)  # states that are not judged yet
    snapshot, size = session.snapshot(), session.nbytes
    after = session.push(STREAM[cut:], final=True)
    for sizes in ([9_001], [640, 1, 20_000]):
        session.restore(snapshot)
        assert session.nbytes == size
        assert run(session, STREAM[cut:], sizes) == after
    assert before + after == run(LongSession(begin, detector and detector.fork(), segment=segment), STREAM)
    assert words(after)
