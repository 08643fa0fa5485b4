"""Recordings of corpora, of any format, rate and number of channels that soundfile reads, as mono samples at 16 kHz."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr

from mla_fairseq.files import unusable
from mla_fairseq.speech.audio import RATES, check_samples, open_audio
from mla_fairseq.speech.samples import SAMPLE_RATE

# Listings round offsets and durations, and decoders of compressed files may end early: 50 ms are no fault.
ROUNDING = 0.05


class Recording(NamedTuple):
    """The length of a recording in samples at 16 kHz, and the ``rate`` of the file in Hz."""

    length: int
    rate: int


def open_recording(path: Path) -> Recording:
    """Return what the header of a recording says.

    Raises:
        ValueError: a file that is missing, not readable, empty or of a rate that is no rate of speech.
    """
    if fault := unusable(path):
        raise ValueError(f"{path} {fault}: copy it again, or remove its segments from the list")
    with open_audio(path) as file:
        if not RATES[0] <= file.samplerate <= RATES[1]:
            raise ValueError(f"{file.samplerate} samples per second are no rate of speech: repair the file")
        if file.frames == 0:
            raise ValueError("empty audio: record or copy it again, or leave it out")
        return Recording(round(file.frames * SAMPLE_RATE / file.samplerate), file.samplerate)


def read_segment(path: Path, start: int, length: int) -> np.ndarray:
    """Return ``length`` samples at 16 kHz from sample ``start``, (length,) float32; channels are averaged.

    Samples of a mono 16 kHz file are unchanged; others are resampled from those of the segment alone.

    Raises:
        ValueError: audio that cannot be used, or ends more than 50 ms before the segment does.
    """
    with open_audio(path) as file:
        return _read(file, start, length)


def change_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Return samples (N,) at 16 kHz, played ``speed`` times as fast: (round(N / speed),). Pitch changes too."""
    return _fit(soxr.resample(samples, SAMPLE_RATE * speed, SAMPLE_RATE), changed_length(len(samples), speed))


def changed_length(length: int, speed: float) -> int:
    """Return the number of samples that ``change_speed`` returns for ``length`` samples."""
    return round(length / speed)


def _read(file: soundfile.SoundFile, start: int, length: int) -> np.ndarray:
    """Return a segment of an open file as ``read_segment`` does."""
    first, last = (round(place * file.samplerate / SAMPLE_RATE) for place in (start, start + length))
    file.seek(min(first, file.frames))
    block = file.read(last - first, dtype="float32", always_2d=True)
    if last - first - len(block) > ROUNDING * file.samplerate:
        end = (first + len(block)) / file.samplerate
        raise ValueError(f"ends at {end:.2f} s, before its segment ({last / file.samplerate:.2f} s): copy it again")
    check_samples(block, first, file.samplerate)
    mono = block.mean(axis=1)
    return _fit(mono if file.samplerate == SAMPLE_RATE else soxr.resample(mono, file.samplerate, SAMPLE_RATE), length)


def _fit(samples: np.ndarray, length: int) -> np.ndarray:
    """Return exactly ``length`` samples: a resampler rounds in its own way, and a file may end in the segment."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))
