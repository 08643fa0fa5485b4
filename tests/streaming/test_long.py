"""Long sessions: each stretch of speech is a session on its samples, however the audio arrives."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_fairseq.streaming import (
    Emission,
    EnergyDetector,
    HoldPolicy,
    IncrementalSession,
    LocalAgreementPolicy,
    LongSession,
    MonotonicPolicy,
    OfflineSession,
    SearchOptions,
    Session,
    WaitKPolicy,
)
from mla_fairseq.streaming.boundary import sentence_end
from mla_fairseq.streaming.boundary_stream import BoundaryStream
from tests.streaming.conftest import RATE

MONOTONIC = "--simul-type infinite_lookback --cross-attn-type relu"
SHORT = SearchOptions(max_len_a=0.1, max_len_b=4)
SESSIONS = {
    "wait-k": (1, lambda translator: IncrementalSession(translator("--attn-type relu"), WaitKPolicy(1), SHORT)),
    "beam": (1, lambda translator: IncrementalSession(translator(), WaitKPolicy(2), SearchOptions(3, max_len_b=4))),
    "monotonic": (1, lambda translator: IncrementalSession(translator(MONOTONIC), MonotonicPolicy(), SHORT)),
    "hold": (12, lambda translator: OfflineSession(translator(), HoldPolicy(2), SHORT)),
    "agreement": (12, lambda t: OfflineSession(t("--encoder-chunk-size 0"), LocalAgreementPolicy(), SHORT)),
}
every_session = pytest.mark.parametrize("name", SESSIONS)


def voice(seconds: float, seed: int) -> np.ndarray:
    """Return loud noise (N,) int16 without a pause, whose loudness varies."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(round(seconds * RATE))
    loudness = np.repeat(rng.uniform(0.3, 1, len(samples) // 800 + 1), 800)[: len(samples)]
    return (samples * loudness * 4_000).astype(np.int16)


def hiss(seconds: float, decibels: float = -70) -> np.ndarray:
    """Return quiet noise (N,) int16."""
    samples = np.random.default_rng(1).standard_normal(round(seconds * RATE))
    return np.round(samples * 32_768 * 10 ** (decibels / 20)).astype(np.int16)


STREAM = np.concatenate([hiss(0.31), voice(1.1, 1), hiss(0.25), voice(0.9, 2), hiss(0.8), voice(2.03, 3), hiss(0.37)])


def run(session: LongSession | Session, samples: np.ndarray, cuts: list[int] = ()) -> list[Emission]:
    """Translate samples in segments of the sizes ``cuts`` and a last one of the rest."""
    parts = np.split(samples, np.cumsum(cuts))
    return [e for part in parts[:-1] for e in session.push(part)] + session.push(parts[-1], final=True)


class Spy(LongSession):
    """A long session that notes the first and last sample of each stretch, and whether it was written."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.slices = []

    def _close(self, place: int, cut: bool) -> list[Emission]:
        ended, was = self.silence + (self.start + len(self.kept)) * 640, self.session
        found = super()._close(place, cut)
        if was and (found or was.source.ended):
            self.slices.append((self.opened, ended + (len(self.tail) if self.finished else 0)))
        return found


def words(found: list[Emission]) -> list[tuple[int, str, bool]]:
    return [(e.stretch, e.text, e.sentence_ended) for e in found]


@every_session
def test_a_stretch_is_a_session_on_its_samples(translator, name: str) -> None:
    segment, begin = SESSIONS[name]
    session = Spy(begin(translator), segment=segment)
    found = run(session, STREAM)
    assert len(session.slices) == 3
    assert {emission.stretch for emission in found if emission.text} == {0, 1, 2}
    for stretch, (start, stop) in enumerate(session.slices):
        blocks = [640 * segment] * ((stop - start) // (640 * segment))
        alone = run(begin(translator), STREAM[start:stop], blocks)
        assert [(e.text, e.states, e.sentence_ended) for e in found if e.stretch == stretch] == [
            (e.text, e.states, e.sentence_ended) for e in alone
        ]
    starts = [start for start, _ in session.slices]
    onsets = [round(second * RATE) for second in (0.31, 1.66, 3.36)]
    assert all(640 <= onset - start <= 1280 for onset, start in zip(onsets, starts, strict=True))


@functools.cache
def expected(name: str, begin) -> list[Emission]:
    segment, build = SESSIONS[name]
    return run(LongSession(build(begin), segment=segment), STREAM)


@every_session
@given(cuts=st.lists(st.integers(0, 30_000), max_size=4))
@settings(max_examples=4)
def test_any_cutting_gives_the_same_emissions(translator, name: str, cuts: list[int]) -> None:
    segment, begin = SESSIONS[name]
    session = LongSession(begin(translator), segment=segment)
    assert run(session, STREAM, cuts) == expected(name, translator)


def test_single_samples_and_other_types_give_the_same_emissions(translator) -> None:
    begin, stream = SESSIONS["wait-k"][1], STREAM[: round(1.7 * RATE)]
    together = run(LongSession(begin(translator)), stream)
    assert together and run(LongSession(begin(translator)), stream, [1] * 3_000) == together
    assert run(LongSession(begin(translator)), stream / np.float32(32_768)) == together
    assert run(LongSession(begin(translator)), torch.tensor(stream)) == together


@pytest.mark.parametrize("samples", [1, 640, 16_000, 12_345])
def test_leading_silence_changes_nothing_but_the_time(translator, samples: int) -> None:
    begin = SESSIONS["wait-k"][1]
    plain = run(LongSession(begin(translator)), STREAM)
    later = run(LongSession(begin(translator)), np.concatenate([np.zeros(samples, np.int16), STREAM]), [7, 400])
    assert words(later) == words(plain)
    assert [e.milliseconds for e in later] == [e.milliseconds + samples / 16 for e in plain]
    if samples % 640 == 0:  # noise, too, in steps of a block
        noisy = run(LongSession(begin(translator)), np.concatenate([hiss(samples / RATE), STREAM]))
        assert words(noisy) == words(plain)


@pytest.mark.parametrize("decibels", [None, -80, -60, -40])
def test_silence_and_noise_give_no_word(translator, decibels: float | None) -> None:
    session = LongSession(SESSIONS["wait-k"][1](translator))
    minute = np.zeros(60 * RATE, np.int16) if decibels is None else hiss(60, decibels)
    sizes = set()
    for _ in range(5):
        assert session.push(minute) == []
        sizes.add(session.nbytes)
    assert max(sizes) < 20_000
    assert session.push(hiss(0.1), final=True) == []


def test_memory_and_the_words_of_an_hour(translator) -> None:
    """The same sentences give the same words in the first minute and in the last, with the same memory."""
    session = LongSession(SESSIONS["wait-k"][1](translator))
    found, sizes = [], []
    for _ in range(4):
        first = session.stretch + 1
        emissions, largest = [], 0
        for part in np.split(STREAM[: len(STREAM) // 640 * 640], 12):
            emissions += session.push(part)
            largest = max(largest, session.nbytes)
        found.append([(stretch - first, text, ended) for stretch, text, ended in words(emissions)])
        sizes.append(largest)
    assert found[1] == found[2] == found[3]
    assert len(found[1]) > 3
    assert sizes[1] == sizes[2] == sizes[3]


@every_session
def test_a_snapshot_restores_everything(translator, name: str) -> None:
    segment, begin = SESSIONS[name]
    session = LongSession(begin(translator), segment=segment)
    before = session.push(STREAM[:20_000])
    snapshot = session.snapshot()
    after = session.push(STREAM[20_000:], final=True)
    for _ in range(2):
        session.restore(snapshot)
        assert session.push(STREAM[20_000:50_000]) + session.push(STREAM[50_000:], final=True) == after
    assert before + after == expected(name, translator)
    with pytest.raises(ValueError, match=r"not a snapshot of LongSession \(IncrementalSession\)"):
        session.restore(SESSIONS["wait-k"][1](translator))
    changes = ({"pause": 0.2}, {"longest": 9}, {"segment": 3}, {"detector": SileroLike()})
    for change in changes:
        with pytest.raises(ValueError, match=r"the snapshot is of (a session with )?another"):
            session.restore(LongSession(begin(translator), **{"segment": segment, **change}).snapshot())


KINDS = {
    "wait-k": lambda t: (IncrementalSession(t, WaitKPolicy(1), SHORT), 1),
    "later": lambda t: (IncrementalSession(t, WaitKPolicy(3), SHORT), 1),
    "hold": lambda t: (OfflineSession(t, HoldPolicy(2), SHORT), 12),
}


@pytest.mark.parametrize(("before", "after"), [("wait-k", "later"), ("wait-k", "hold"), ("hold", "wait-k")])
def test_a_change_holds_from_the_next_stretch_on(translator, before: str, after: str) -> None:
    """Nothing changes in the stretch that is being translated, wherever in it the change comes."""
    old, new = (
        run(LongSession(session, segment=segment), STREAM)
        for session, segment in (KINDS[name](translator()) for name in (before, after))
    )
    assert old != new
    for cut, stretch in ((3_000, -1), (12_000, 0), (33_000, 1), (39_000, 1), (60_001, 2)):
        session, segment = KINDS[before](translator())
        session = LongSession(session, segment=segment)
        found = session.push(STREAM[:cut])
        assert session.stretch == stretch
        session.change(*KINDS[after](translator()))
        found += session.push(STREAM[cut:], final=True)
        assert found == [e for e in old if e.stretch <= stretch] + [e for e in new if e.stretch > stretch]


def test_what_cannot_be_changed_is_refused_and_changes_nothing(translator) -> None:
    session = LongSession(KINDS["wait-k"](translator())[0])
    before = session.snapshot()
    used = KINDS["later"](translator())[0]
    used.push(STREAM[:100])
    with pytest.raises(ValueError, match="a long session needs another session without samples"):
        session.change(used)
    with pytest.raises(ValueError, match="the session has another translator: start a new long session"):
        session.change(KINDS["later"](translator("--attn-type relu"))[0])
    with pytest.raises(ValueError, match="the blocks of a segment must be an integer of at least 1, but is 0"):
        session.change(*KINDS["later"](translator())[:1], segment=0)
    assert session.fresh.policy == before.fresh.policy == WaitKPolicy(1, 3)
    session.change(*KINDS["later"](translator()))
    with pytest.raises(ValueError, match="the snapshot is of a session with another policy"):
        session.restore(before)


class SileroLike(EnergyDetector):
    """A detector of another type."""


def test_what_is_no_detector_is_refused(translator) -> None:
    begin = SESSIONS["wait-k"][1]
    for wrong in (5, EnergyDetector, "energy", object()):
        with pytest.raises(ValueError, match=r"this is no detector \(.*\): give an object with push"):
            LongSession(begin(translator), wrong)
    vague = EnergyDetector()
    vague.push = lambda block: "x"
    with pytest.raises(ValueError, match="what a detector returns must be true or false, but is 'x'"):
        LongSession(begin(translator), vague).push(STREAM[:2000])


def test_emissions_have_the_time_of_their_audio(translator) -> None:
    begin = SESSIONS["wait-k"][1]
    session = LongSession(begin(translator))
    for place in range(0, len(STREAM), 640):
        for emission in session.push(STREAM[place : place + 640]):
            assert emission.milliseconds == (place // 640 + 1) * 40
    plain = begin(translator)
    found = plain.push(STREAM[:24_000]) + plain.push(STREAM[24_000:30_001], final=True)
    assert {e.milliseconds for e in found} == {1500.0, 30_001 / 16}
    assert {e.stretch for e in found} == {0}


def test_a_stretch_is_not_longer_than_the_longest(translator) -> None:
    session = Spy(SESSIONS["wait-k"][1](translator), longest=1)
    found = run(session, np.concatenate([hiss(0.2), voice(3.3, 4), hiss(0.5)]))
    assert [stop - start for start, stop in session.slices[:3]] == [16_000] * 3
    assert all(after == before for (_, before), (after, _) in zip(session.slices, session.slices[1:], strict=False))
    assert {e.stretch for e in found} == set(range(len(session.slices)))


def test_a_click_opens_no_stretch_and_a_short_word_does(translator) -> None:
    session = Spy(SESSIONS["wait-k"][1](translator))
    run(session, np.concatenate([hiss(1), voice(0.1, 5), hiss(1), voice(0.35, 6), hiss(1)]))
    assert len(session.slices) == 1
    assert session.slices[0][0] > 2 * RATE


class Script(torch.nn.Module):
    """A boundary output that finds what a function of the encoder states says."""

    back, ahead = 2, 6

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.answer(states)


def loud_end(states: torch.Tensor) -> torch.Tensor:
    """Answer from the states alone: some of them end a sentence, all are speech."""
    return torch.stack([6 * (states[..., 0] - 0.8), torch.full(states.shape[:2], 9.0)], -1)


@pytest.fixture
def bounded(translator, request: pytest.FixtureRequest):
    """``bounded(name, answer)``: a session of a model whose encoder has a boundary output."""

    def bounded(name: str, answer=loud_end) -> tuple[int, Session]:
        segment, begin = SESSIONS[name]
        encoder = begin(translator).translator.model.encoder
        encoder.boundary = Script(answer)
        request.addfinalizer(lambda: setattr(encoder, "boundary", None))  # sessions of other tests share the model
        return segment, begin(translator)

    return bounded


@pytest.mark.parametrize("name", ["wait-k", "monotonic", "hold"])
@pytest.mark.parametrize("detector", [None, EnergyDetector()], ids=["speech-output", "energy"])
def test_without_pauses_no_sample_is_lost_between_sentences(bounded, name: str, detector) -> None:
    segment, begin = bounded(name)
    stream = np.concatenate([hiss(0.04), voice(6, 7)])
    session = Spy(begin, detector.fork() if detector else None, segment=segment)
    found = run(session, stream)
    assert len(session.slices) > 2
    assert session.slices[-1][1] == len(stream)
    for (start, stop), (after, _) in zip(session.slices, session.slices[1:], strict=False):
        assert start + 10 * 640 <= after <= stop  # all but the states that were not yet judged is behind the boundary
        assert stop - after <= (6 + 3 + 12 * (segment > 1) + 8) * 640
    for stretch, (start, stop) in enumerate(session.slices):
        blocks = [640 * segment] * ((stop - start) // (640 * segment))
        alone = run(begin.snapshot(), stream[start:stop], blocks)
        assert [(e.text, e.states) for e in found if e.stretch == stretch] == [(e.text, e.states) for e in alone]
    again = Spy(begin, detector.fork() if detector else None, segment=segment)
    assert run(again, stream, [1, 5_000, 639, 20_001]) == found


def test_the_speech_output_opens_and_ends_stretches(bounded) -> None:
    """Noise that the energy detector takes for speech is not; the listening encoder starts again now and then."""

    def answer(states: torch.Tensor) -> torch.Tensor:
        return torch.full((*states.shape[:2], 2), -5.0)

    session = LongSession(bounded("wait-k", answer)[1])
    sizes = []
    for _ in range(4):
        assert session.push(np.concatenate([voice(15, 8), hiss(10)])) == []
        sizes.append(session.nbytes)
    assert max(sizes) < 200_000
    assert session.stretch == -1
    assert session.finish() == []


def test_doubtful_speech_continues_a_stretch_but_opens_none(bounded) -> None:
    certainty = [0.9]

    def answer(states: torch.Tensor) -> torch.Tensor:
        logit = math.log(certainty[0] / (1 - certainty[0]))
        return torch.stack([torch.full(states.shape[:2], -5.0), torch.full(states.shape[:2], logit)], -1)

    session = LongSession(bounded("wait-k", answer)[1])
    for certainty[0], stretch in ((0.9, -1), (0.999, 0), (0.9, 0)):
        session.push(voice(2, 9))
        assert session.stretch == stretch
    assert session.session is not None  # still the same stretch


def test_states_are_judged_once_and_as_in_one_piece(translator) -> None:
    torch.manual_seed(3)
    layer, states = torch.nn.Linear(9 * 4, 2), torch.randn(23, 1, 4)

    def windowed(x: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(x, (0, 0, 0, 0, 2, 6))
        return layer(torch.cat([padded[j : j + len(x)] for j in range(9)], -1))

    whole = windowed(states).sigmoid()[:, 0].detach().numpy()
    for sizes in ([23], [1] * 23, [4, 0, 7, 12], [5, 18]):
        judge = BoundaryStream(Script(windowed))
        for count, part in enumerate(states.split(sizes)):
            judge.push(part)
            known = max(0, sum(sizes[: count + 1]) - 6)
            assert np.allclose(judge.ended, whole[:known, 0], atol=1e-6)
        assert len(judge.window) <= 8
        judge.push(states[:0], final=True)
        assert np.allclose(judge.speech, whole[:, 1], atol=1e-6)
        assert len(judge.ended) == 23


@pytest.mark.parametrize(
    ("ended", "decoded", "place"),
    [
        ({3: 0.9}, None, None),  # too early
        ({12: 0.6}, None, 12),
        ({12: 0.6, 14: 0.8, 15: 0.9}, None, 14),
        ({38: 0.6}, None, None),  # the two after it are not judged
        ({12: 0.4}, None, None),
        ({12: 0.4}, 30, 12),  # the decoder is a witness
        ({12: 0.2, 20: 0.1}, 26, None),
        ({12: 0.1, 20: 0.2}, 25, 20),  # and has waited for long enough
    ],
)
def test_the_end_of_a_sentence(ended: dict[int, float], decoded: int | None, place: int | None) -> None:
    probabilities = np.zeros(40, np.float32)
    probabilities[list(ended)] = list(ended.values())
    assert sentence_end(probabilities, decoded) == place


def test_a_short_rest_after_a_cut_is_dropped(bounded) -> None:
    """A boundary just before a pause leaves the last sounds of a sentence, which are no sentence."""
    _, begin = bounded("wait-k", lambda x: torch.full((*x.shape[:2], 2), -5.0))
    stream = np.concatenate([hiss(0.2), voice(1, 9), hiss(0.6)])
    for after_cut in (False, True):
        session = Spy(begin, EnergyDetector())
        session.after_cut, session.fresh.policy = after_cut, WaitKPolicy(9, 3)
        short = np.concatenate([hiss(0.2), voice(0.3, 9), hiss(0.6)])
        assert bool(run(session, short)) is not after_cut
    session = Spy(begin, EnergyDetector())
    session.after_cut = True
    assert run(session, stream)


@pytest.mark.parametrize(
    "options",
    [{"pause": 0.01}, {"pause": "1"}, {"longest": 0.5}, {"longest": float("nan")}, {"pause": 5, "longest": 2}],
)
def test_limits_that_are_not_possible_are_refused(translator, options: dict) -> None:
    with pytest.raises(ValueError, match=r"shortest pause must be at least 0\.04 s"):
        LongSession(SESSIONS["wait-k"][1](translator), **options)


def test_other_mistakes_are_refused_and_change_nothing(translator) -> None:
    begin = SESSIONS["wait-k"][1]
    used = begin(translator)
    used.push(hiss(0.1))
    for bad in (used, None, LongSession(begin(translator))):
        with pytest.raises(ValueError, match="needs another session without samples: give a new one"):
            LongSession(bad)
    with pytest.raises(ValueError, match="the blocks of a segment must be an integer of at least 1, but is 0"):
        LongSession(begin(translator), segment=0)
    session = LongSession(begin(translator))
    found = session.push(STREAM[:30_001])
    for bad in (np.zeros((4, 2), np.float32), np.full(4, np.nan, np.float32)):
        with pytest.raises(ValueError, match="samples"):
            session.push(bad)
    with pytest.raises(ValueError, match="final must be true or false"):
        session.push(STREAM, final="no")
    assert found + session.push(STREAM[30_001:], final=True) == expected("wait-k", translator)
    with pytest.raises(RuntimeError, match="the recording has ended, start a new session"):
        session.push(STREAM)
