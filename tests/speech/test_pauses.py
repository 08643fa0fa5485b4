"""Pauses are found at the same places however the audio arrives, and long recordings are cut there."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_fairseq.speech.pauses import FRAME, KEPT, PAUSE, Edge, PauseDetector, levels, stretches

RATE = 16_000


def sound(seconds: float, decibels: float = -20.0, seed: int = 0) -> np.ndarray:
    """Return noise (N,) of a level."""
    return 10 ** (decibels / 20) * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def talk(*seconds: float, floor: float = -80.0) -> np.ndarray:
    """Return silence and speech in turn, beginning with silence; its ends are multiples of a frame."""
    parts = [sound(length, (floor, -20.0)[place % 2], place) for place, length in enumerate(seconds)]
    return np.concatenate([[], *parts]).astype(np.float32)


def found(samples: np.ndarray, pause: float = PAUSE) -> list[tuple[float, bool]]:
    """Return the edges in seconds."""
    return [(edge.sample / RATE, edge.starts) for edge in PauseDetector(pause).push(samples, final=True)]


@pytest.mark.parametrize("floor", [-120.0, -80.0, -60.0, -50.0])
def test_speech_starts_and_ends_where_it_is_loud(floor: float) -> None:
    edges = found(talk(0.5, 1.0, 0.4, 0.6, 0.3, floor=floor))
    assert edges == [(0.5, True), (1.5, False), (1.9, True), (2.5, False)]


def test_a_short_pause_does_not_end_speech() -> None:
    samples = talk(0.5, 1.0, 0.14, 0.6, 0.3)
    assert found(samples) == [(0.5, True), (2.24, False)]
    assert len(found(samples, pause=0.1)) == 4


def test_speech_up_to_the_end_is_ended() -> None:
    assert found(talk(0.5, 1.0)) == [(0.5, True), (1.5, False)]
    assert found(talk(0.5)) == found(talk()) == []


def test_the_floor_follows_louder_noise() -> None:
    """After 30 s of noise at -45 dB, which is speech beside the silence before, it is the floor."""
    samples = np.concatenate([talk(1.0), sound(40, -45), sound(1, -20, 1), sound(1, -45, 2)]).astype(np.float32)
    edges = found(samples)
    assert edges[0] == (1.0, True) and edges[1][0] < 31
    assert edges[-2:] == [(41.0, True), (42.0, False)]


def test_an_edge_is_reported_when_it_is_known() -> None:
    detector, samples, known = PauseDetector(), talk(0.5, 1.0, 1.0), []
    for place in range(0, len(samples), FRAME):
        known += [(place + FRAME, edge) for edge in detector.push(samples[place : place + FRAME])]
    started, ended = known
    assert started == (8_000 + FRAME, Edge(8_000, True))
    assert ended == (24_000 + round(PAUSE * RATE), Edge(24_000, False))
    assert not detector.speaking


@given(st.lists(st.integers(0, 6_000), max_size=12), st.integers(0, 3))
def test_edges_do_not_depend_on_the_chunks(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = (talk(*rng.uniform(0.03, 0.6, 7)) * 30_000).astype(np.int16)
    whole = PauseDetector().push(samples, final=True)
    detector, edges = PauseDetector(), []
    for chunk in np.split(samples, np.minimum(np.cumsum(sizes), len(samples))):
        edges += detector.push(chunk)
        detector = copy.copy(detector)  # a snapshot
    assert edges + detector.push([], final=True) == whole


def test_a_copy_is_a_snapshot() -> None:
    detector, samples = PauseDetector(), talk(0.5, 1.0, 0.5, 0.5)
    detector.push(samples[:10_000])
    snapshot = copy.copy(detector)
    first = detector.push(samples[10_000:], final=True)
    assert first == snapshot.push(samples[10_000:], final=True) and len(first) == 3


def test_wrong_calls_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a pause of 0\.01 s is shorter than 0\.02 s: increase it"):
        PauseDetector(0.01)
    with pytest.raises(ValueError, match=r"a longest stretch of 0\.5 s is below 1 s"):
        stretches(talk(0.5), 0.5)
    detector = PauseDetector()
    detector.push([], final=True)
    with pytest.raises(RuntimeError, match="push after final=True"):
        detector.push([])


def seconds(samples: np.ndarray, longest: float, pause: float | None = None) -> list[tuple[float, float]]:
    return [(round(start / RATE, 3), round(stop / RATE, 3)) for start, stop in stretches(samples, longest, pause)]


def test_speech_is_cut_at_its_longest_pauses() -> None:
    samples = talk(0.5, 1.0, 0.3, 1.0, 0.6, 1.0, 0.4, 1.0, 0.5)
    runs = [(0.5, 1.5), (1.8, 2.8), (3.4, 4.4), (4.8, 5.8)]
    ends = [(round(start - KEPT, 3), round(stop + PAUSE, 3)) for start, stop in runs]
    assert seconds(samples, 10) == [(ends[0][0], ends[3][1])]
    assert seconds(samples, 3) == [(ends[0][0], ends[1][1]), (ends[2][0], ends[3][1])]
    assert seconds(samples, 2.6) == [(ends[0][0], ends[1][1]), ends[2], ends[3]]
    assert seconds(samples, 1.5) == ends
    assert seconds(samples, 10, pause=0.5) == [(ends[0][0], ends[1][1]), (ends[2][0], ends[3][1])]
    assert seconds(samples, 10, pause=0.1) == ends


def test_equal_pauses_are_cut_in_the_middle() -> None:
    assert len(stretches(talk(0.5, *[0.8, 0.2] * 8), 4.5)) == 2


def test_speech_without_a_pause_is_cut_where_it_is_quiet() -> None:
    samples = np.concatenate([talk(0.5), sound(3.5), sound(0.04, -45, 1), sound(4.5, -20, 2)]).astype(np.float32)
    (_, first), (second, last) = stretches(samples, 6)
    assert first == second and 4.0 < first / RATE < 4.04
    assert last == len(samples)


def test_speech_from_the_first_sample_on_is_found() -> None:
    """The floor before the first frame is that of the first second: quiet speech is not taken for noise."""
    loudness = np.repeat([-38.0, -36.0, -60.0, -37.0, -38.0, -65.0], 3_200)
    samples = (10 ** (loudness / 20) * np.random.default_rng(0).standard_normal(len(loudness))).astype(np.float32)
    assert stretches(samples, 10)[0][0] == 0


@given(st.lists(st.floats(0.02, 3.0), max_size=15), st.floats(1.0, 6.0))
def test_stretches_are_in_order_short_enough_and_hold_all_speech(lengths: list[float], longest: float) -> None:
    samples = talk(*lengths)
    places = stretches(samples, longest)
    edges = [0, *(edge for place in places for edge in place), len(samples)]
    assert edges == sorted(edges)
    assert all(FRAME < stop - start <= longest * RATE for start, stop in places)
    kept = np.zeros(len(samples), bool)
    for start, stop in places:
        kept[start:stop] = True
    frames = len(samples) // FRAME
    loud = np.array(levels(samples[: frames * FRAME] * 32_768)) > -40
    assert not (loud & ~kept[: frames * FRAME].reshape(-1, FRAME).any(1)).any()
