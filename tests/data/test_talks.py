"""Sentences cut out of talks: where they are, what surrounds them, and what noise does to filter banks."""

import functools

import numpy as np
import pytest

from mla_fairseq.data.talks import LONGEST, LOST, Ratios, Sentence, TalkCutter, edges, spoken
from mla_fairseq.speech import filter_banks

QUIET, LOUD = -10.0, 24.0  # noise in pauses is below 23


def sentence(length: int = 120, mark: float = LOUD, margin: int = 5) -> np.ndarray:
    """Return filter banks of a sentence, each frame another number, between quiet frames."""
    frames = np.full((length + 2 * margin, 80), QUIET, np.float32)
    frames[margin : margin + length] = mark + np.arange(length)[:, None] / 1000
    return frames


cutter_of = functools.cache(TalkCutter)  # its noise takes a while


def cut(seed: int, **ratios: float) -> Sentence:
    before, after = edges(sentence(150, 28))[0], edges(sentence(150, 32))[1]
    return cutter_of(Ratios(**ratios))(sentence(), lambda: before, lambda: after, np.random.default_rng(seed))


def test_speech_is_found_between_quiet_frames() -> None:
    assert spoken(sentence(30, margin=7)) == (7, 37)
    assert spoken(np.zeros((9, 80), np.float32)) == (0, 9)


@pytest.mark.parametrize("seed", range(40))
def test_the_sentence_is_whole_and_where_the_labels_are(seed: int) -> None:
    found = cut(seed, context=1)
    level = found.frames.max(1)
    mine = np.flatnonzero((level >= LOUD) & (level < 28))
    assert len(mine) == 120
    assert np.array_equal(mine, np.arange(found.end - 120, found.end))
    assert np.array_equal(found.speech, level >= LOUD)  # pauses are quieter
    assert len(found.frames) <= 120 + LONGEST
    assert (level[: mine[0]] < 32).all() and (level[found.end :] < 28).sum() == (~found.speech[found.end :]).sum()


def test_what_surrounds_a_sentence_has_the_wanted_lengths() -> None:
    items = [cut(seed, context=1) for seed in range(300)]
    starts = np.array([item.end - 120 for item in items])
    tails = np.array([item.speech[: item.end - 120].sum() for item in items])
    assert starts.max() <= 30 and tails.max() == 10 and 0.65 < (tails > 0).mean() < 0.85
    following = np.array([item.speech[item.end :].sum() for item in items])
    assert following[following > 0].min() >= 20 and following.max() <= 100 and 0.84 < (following > 0).mean() < 0.96
    at_once = np.array([item.end < len(item.speech) and item.speech[item.end] for item in items])
    assert 0.4 < at_once.mean() < 0.6
    ahead = [(item.readable - item.end) // 4 for item in items if item.readable < len(item.frames)]
    assert min(ahead) == -1 and max(ahead) == 9


def test_onsets_are_lost_but_nothing_else() -> None:
    items = [cut(seed, lost_onset=1) for seed in range(60)]
    lost = [120 - item.speech.sum() for item in items]
    assert set(lost) == set(range(LOST + 1))
    whole = sentence()
    for item, gone in zip(items, lost, strict=True):
        assert np.array_equal(item.frames, whole[5 + gone :])
        assert item.end == 120 - gone and item.readable == len(item.frames)


def test_without_an_effect_nothing_changes() -> None:
    found = cut(0)
    assert np.array_equal(found.frames, sentence())
    assert found.end == 125 and found.readable == 130 and found.speech.sum() == 120


@pytest.mark.parametrize("level", [-80.0, -60.0, -40.0])
def test_noise_over_silence_has_its_level(level: float) -> None:
    """The filter banks are those of white noise with that level, except for their random part."""
    cutter, rng = TalkCutter(Ratios(noise=1)), np.random.default_rng(1)
    samples = 32768 * 10 ** (level / 20) * rng.standard_normal(32000)
    wanted = filter_banks((samples / 32768).astype(np.float32))
    made = cutter._noise(len(wanted), level, rng)
    assert np.abs(made.mean(0) - wanted.mean(0)).max() < 0.6  # natural logarithms; 1 dB is 0.23
    assert abs(made.mean() - wanted.mean()) < 0.05


def test_powers_add() -> None:
    """In the filter banks, as those of a sum of two signals that do not know each other."""
    cutter, rng = TalkCutter(Ratios(noise=1)), np.random.default_rng(2)
    speech = filter_banks((0.01 * rng.standard_normal(16000)).astype(np.float32))
    noisy = cutter._noisy(speech, np.random.default_rng(3))
    drawn = np.random.default_rng(3)
    level = drawn.uniform(-80, -38)
    np.testing.assert_allclose(noisy, np.logaddexp(speech, cutter._noise(len(speech), level, drawn)), atol=1e-5)
    assert noisy.dtype == np.float32


def test_zeros_are_those_of_the_front_end() -> None:
    cutter = TalkCutter(Ratios(context=1))
    assert np.array_equal(filter_banks(np.zeros(1600, np.int16)), np.tile(cutter.floor, (8, 1)))
    assert cutter._noise(50, -300.0, np.random.default_rng(0)).min() == cutter.floor.min()
