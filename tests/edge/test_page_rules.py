"""The scripts of the page follow the package's rules: words, stretches of speech, and the resampler."""

from pathlib import Path

import numpy as np
import pytest
import soxr

from mla_fairseq.streaming.boundary import sentence_end
from mla_fairseq.streaming.detectors import BLOCK, EnergyDetector, first_pause, onset
from mla_fairseq.streaming.words import join, whole
from tests.edge.scripts import NODE, run_script

pytestmark = pytest.mark.skipif(not NODE, reason="the scripts of the page need Node.js: apt-get install nodejs")

RATES = [8000, 11025, 16000, 22050, 44100, 48000, 96000]
TONES = [100.0, 440.0, 1000.0, 3100.0, 6500.0]  # Hz
HIGHEST = 0.9  # of the lower Nyquist frequency: what the resampler must let through


def test_words_are_joined_as_in_sessions(tmp_path: Path) -> None:
    pieces = ["\u2581Gu", "ten", "\u2581", "Tag", ".", "<s>", "<lang:de>", "<lang:>", "\u2581\u2581x", "\u2581"]
    sentences = [pieces[i:j] for i in range(len(pieces)) for j in range(i, len(pieces) + 1)]
    imports = 'import { join, whole } from "./page/words.js";'
    body = "return given.map((pieces) => [join(pieces), whole(pieces)]);"
    assert run_script(tmp_path, imports, body, sentences) == [[join(s), whole(s)] for s in sentences]


def test_speech_and_ends_of_sentences_are_found_as_in_long_sessions(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    speech = [(random.random(n) < share).tolist() for n in range(40) for share in (0.2, 0.5, 0.9)]
    ended = [(random.random(n) ** power).round(6).tolist() for n in range(40) for power in (1, 3, 20)]
    decoded = [None, 1, 8, 20]
    body = """
      const some = (values) => values.map((value) => value ?? null);
      return {
        onset: given.speech.map((s) => onset(s, 4)),
        pause: some(given.speech.map((s) => firstPause(s, 4, 6))),
        end: given.ended.flatMap((e) => given.decoded.map((d) => sentenceEnd(e, d))),
      };"""
    imports = 'import { onset, firstPause, sentenceEnd } from "./page/detectors.js";'
    found = run_script(tmp_path, imports, body, {"speech": speech, "ended": ended, "decoded": decoded})
    assert found["onset"] == [onset(s, 4) for s in speech]
    assert found["pause"] == [first_pause(s, 4, after=6) for s in speech]
    ends = [sentence_end(np.array(e, np.float32), d) for e in ended for d in decoded]
    assert found["end"] == ends
    assert None in ends and len(set(ends)) > 10


def test_energy_finds_the_same_speech(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    levels = 10 ** random.uniform(-4, -0.5, 150).repeat(3 * BLOCK)
    blocks = (random.standard_normal(len(levels)) * levels * 0.2).clip(-1, 1).astype(np.float32).reshape(-1, BLOCK)
    imports = 'import { EnergyDetector } from "./page/detectors.js";'
    body = "const d = new EnergyDetector(); return given.map((block) => d.push(Float32Array.from(block)));"
    detector = EnergyDetector()
    expected = [detector.push(block) for block in blocks]
    assert run_script(tmp_path, imports, body, blocks.tolist()) == expected
    assert {True, False} == set(expected)


def resampled(folder: Path, signals: dict[int, list[np.ndarray]]) -> dict[int, list[np.ndarray]]:
    """Return signals at 16 kHz, by rate; each is given in unequal segments, some of them empty."""
    body = """
      const at = (rate, signal) => {
        const resampler = new Resampler(rate);
        const samples = Float32Array.from(signal);
        const out = [];
        for (let start = 0, n = 0; start < samples.length; n += 1) {
          const end = start + [0, 1, 7, 128, 4096][n % 5];
          out.push(...resampler.push(samples.slice(start, end)));
          start = end;
        }
        return [...out, ...resampler.push(new Float32Array(0), true)];
      };
      return given.map(([rate, signals]) => signals.map((signal) => at(rate, signal)));"""
    given = [[rate, [signal.tolist() for signal in every]] for rate, every in signals.items()]
    found = run_script(folder, 'import { Resampler } from "./page/resample.js";', body, given)
    return {rate: [np.array(signal) for signal in every] for rate, every in zip(signals, found, strict=True)}


def sine(tone: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * tone * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def test_any_rate_becomes_16_khz(tmp_path: Path) -> None:
    tones = {rate: [tone for tone in TONES if tone < HIGHEST * rate / 2] for rate in RATES}
    found = resampled(tmp_path, {rate: [sine(tone, rate) for tone in tones[rate]] for rate in RATES})
    inside = slice(400, -400)  # without the ends, where the tone begins and ends at once
    for rate in RATES:
        for tone, signal in zip(tones[rate], found[rate], strict=True):
            expected = sine(tone, 16000, 0.5)
            assert abs(len(signal) - len(expected)) <= 1
            assert np.abs(signal[: len(expected)] - expected)[inside].max() < 5e-4, (rate, tone)
            peer = soxr.resample(sine(tone, rate), rate, 16000)
            n = min(len(peer), len(signal))
            assert np.abs(signal[:n] - peer[:n])[inside].max() < 1e-3, (rate, tone)


def test_what_16_khz_cannot_hold_is_removed(tmp_path: Path) -> None:
    above = {44100: [8300.0, 12000.0, 20000.0], 48000: [8300.0, 16000.0, 23000.0], 96000: [8300.0, 40000.0]}
    found = resampled(tmp_path, {rate: [sine(tone, rate) for tone in tones] for rate, tones in above.items()})
    for rate, signals in found.items():
        for tone, signal in zip(above[rate], signals, strict=True):
            assert np.abs(signal[400:-400]).max() < 0.5 * 1e-3, (rate, tone)  # 60 dB


def test_16_khz_is_not_changed(tmp_path: Path) -> None:
    signal = sine(440.0, 16000)
    assert np.array_equal(resampled(tmp_path, {16000: [signal]})[16000][0].astype(np.float32), signal)
