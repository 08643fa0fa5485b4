"""Speech features: Kaldi's log-mel filter banks and global mean and variance normalisation.

Both the data preparation (whole utterances) and the simultaneous agents (samples as they arrive) come through here,
so that a model hears the same numbers in training and on the air.
"""

from __future__ import annotations

import os
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np

SAMPLE_RATE = 16_000
NUM_BINS = 80
WINDOW = 400  # samples in one frame: 25 ms
SHIFT = 160  # samples between the starts of two frames: 10 ms
INT16_RANGE = 32_768.0
LARGEST_FLOAT = 2.0  # room for the overshoot of a resampler, far below anything in the 16-bit range


def num_frames(num_samples: int) -> int:
    """How many frames `num_samples` give: only windows that lie wholly inside the signal count (Kaldi's snip_edges)."""
    return max(0, 1 + (num_samples - WINDOW) // SHIFT)


def check_sample_rate(rate: float, name: str = "the audio") -> None:
    """Raise ValueError unless `rate` is 16 kHz, the only rate the filters are laid out for."""
    if rate != SAMPLE_RATE:
        raise ValueError(
            f"{name} has {rate:g} samples per second, but the features need {SAMPLE_RATE}: "
            f"convert it first, for example with `sox IN.wav -r {SAMPLE_RATE} -c 1 OUT.wav`"
        )


def to_kaldi_scale(samples) -> np.ndarray:
    """Samples of one channel as float32 in the 16-bit range, on which Kaldi's log energies are based.

    samples: (N,) array or list, float in [-1, 1] or int16. Raises ValueError for any other shape, dtype or range, and
    for NaN or infinity.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise ValueError(
            f"samples have shape {samples.shape}, but one channel (N,) is needed: "
            "pick or average the channels first, for example `samples.mean(axis=1)`"
        )
    if samples.dtype == np.int16:
        return samples.astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples are {samples.dtype}, but float in [-1, 1] or int16 is needed: convert them first")
    if samples.size and not (loudest := np.abs(samples).max()) <= LARGEST_FLOAT:
        mend = "divide by 32768 or pass int16" if np.isfinite(loudest) else "repair the recording"
        raise ValueError(f"samples reach {loudest}, but floats must lie in [-1, 1]: {mend}")
    return samples.astype(np.float32) * np.float32(INT16_RANGE)


def _options() -> knf.FbankOptions:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0  # the same audio gives the same features every time
    options.mel_opts.num_bins = NUM_BINS
    return options


def _frames(samples: np.ndarray) -> np.ndarray:
    """Every frame that lies wholly inside `samples` (N,), already on Kaldi's scale -> (frames, 80) float32."""
    computer = knf.OnlineFbank(_options())
    computer.accept_waveform(SAMPLE_RATE, samples)
    out = np.empty((computer.num_frames_ready, NUM_BINS), np.float32)
    for index in range(len(out)):
        out[index] = computer.get_frame(index)
    return out


class FilterBankStream:
    """Filter banks of one recording whose samples arrive in pieces of any size.

    The frames are bit-equal to those of the whole recording. The only state is `tail`, the samples that the next
    frame still needs (up to 399, or shorter than a window altogether); it is replaced, never changed in place, so
    `copy.copy(stream)` is a snapshot that can be returned to.
    """

    def __init__(self, sample_rate: float = SAMPLE_RATE) -> None:
        check_sample_rate(sample_rate, "the stream")
        self.tail = np.empty(0, np.float32)
        self.finished = False

    def push(self, samples, final: bool = False) -> np.ndarray:
        """Take the next samples, (N,) float in [-1, 1] or int16, and return the frames that became complete, (n, 80).

        N may be 0. `final` ends the recording: samples that fill no window are dropped, as Kaldi drops them.
        Raises ValueError for bad samples (see `to_kaldi_scale`), RuntimeError after the end.
        """
        if self.finished:
            raise RuntimeError("push after final=True: the recording has ended, begin a new stream or session")
        heard = np.concatenate([self.tail, to_kaldi_scale(samples)])
        frames = _frames(heard)
        self.tail = heard[:0] if final else heard[len(frames) * SHIFT :]
        self.finished = final
        return frames


def filter_banks(samples, sample_rate: float = SAMPLE_RATE) -> np.ndarray:
    """Kaldi's log-mel filter banks of a whole recording: samples (N,) -> (frames, 80) float32, 10 ms per frame.

    25 ms Povey windows, pre-emphasis 0.97, mean removed per window, 80 mel bins from 20 Hz to 8 kHz, natural log of
    the power: fairseq's features. Raises ValueError for another rate, two channels, non-finite samples, empty audio,
    and audio shorter than one window.
    """
    check_sample_rate(sample_rate)
    if np.ndim(samples) == 1 and len(samples) < WINDOW:
        kind = "too short" if len(samples) else "empty"
        raise ValueError(f"audio of {len(samples)} samples is {kind}: a frame needs {WINDOW} (25 ms), leave it out")
    return FilterBankStream(sample_rate).push(samples, final=True)


class GlobalCMVN:
    """Mean and standard deviation of each bin over a whole corpus, gathered frame by frame.

    Sums are float64 and need no features in memory; partial sums of several processes join with `merge`. The file is
    fairseq's: an npz with `mean` and `std`, (80,) float32 each.
    """

    SMALLEST_VARIANCE = 1e-8

    def __init__(self, num_bins: int = NUM_BINS) -> None:
        self.count = 0
        self.total = np.zeros(num_bins)
        self.squares = np.zeros(num_bins)

    def add(self, frames: np.ndarray) -> GlobalCMVN:
        """Take in frames (n, bins)."""
        frames = frames.astype(np.float64)
        self.count += len(frames)
        self.total += frames.sum(axis=0)
        self.squares += np.square(frames).sum(axis=0)
        return self

    def merge(self, other: GlobalCMVN) -> GlobalCMVN:
        """Take in everything that `other` has seen."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        return self

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, (bins,) float32 each. Raises ValueError if nothing was added."""
        if self.count == 0:
            raise ValueError("no frame was added, so there is no mean: is the training split empty?")
        mean = self.total / self.count
        variance = np.maximum(self.squares / self.count - mean**2, self.SMALLEST_VARIANCE)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write `mean` and `std` as fairseq's `global_cmvn` transform reads them; whole or not at all."""
        mean, std = self.statistics()
        part = Path(f"{path}.part")
        with part.open("wb") as file:
            np.savez(file, mean=mean, std=std)
        os.replace(part, path)
