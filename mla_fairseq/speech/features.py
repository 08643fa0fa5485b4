"""Speech features: Kaldi's log-mel filter banks, and global mean and variance normalization.

Data preparation (whole utterances) and streaming sessions (samples as they arrive) both use this module, so that a
model sees the same numbers in training and in a stream.
"""

from __future__ import annotations

from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
from numpy.typing import ArrayLike

from mla_fairseq.files import check_file
from mla_fairseq.speech.samples import SAMPLE_RATE, SHIFT, WINDOW, as_array, as_bool, to_kaldi_scale

NUM_BINS = 80


def check_sample_rate(rate: float, name: str = "the audio") -> None:
    """Check that ``rate`` is 16 kHz, the only rate of the filters.

    Raises:
        ValueError: another rate.
    """
    if rate != SAMPLE_RATE:
        raise ValueError(
            f"{name} has {rate} samples per second, but the features need {SAMPLE_RATE}: "
            f"convert it first, for example with `sox IN.wav -r {SAMPLE_RATE} -c 1 OUT.wav`"
        )


def _options() -> knf.FbankOptions:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0  # the same audio gives the same features every time
    options.mel_opts.num_bins = NUM_BINS
    return options


def _frames(samples: np.ndarray) -> np.ndarray:
    """Return all frames of samples (N,) on Kaldi's scale, (frames, 80) float32."""
    computer = knf.OnlineFbank(_options())
    computer.accept_waveform(SAMPLE_RATE, samples)
    out = np.empty((computer.num_frames_ready, NUM_BINS), np.float32)
    for index in range(len(out)):
        out[index] = computer.get_frame(index)
    return out


class FilterBankStream:
    """Filter banks of one recording whose samples arrive in chunks of any size.

    The frames are bit-equal to those of the whole recording. The only state is ``tail``, the samples that the next
    frame needs too (at most 399). It is replaced, never changed in place, so ``copy.copy(stream)`` is a snapshot.
    """

    def __init__(self, sample_rate: float = SAMPLE_RATE) -> None:
        check_sample_rate(sample_rate, "the stream")
        self.tail = np.empty(0, np.float32)
        self.finished = False

    def push(self, samples: ArrayLike, final: bool = False) -> np.ndarray:
        """Return the frames (n, 80) that the next samples (N,) complete; float in [-1, 1] or int16, N may be 0.

        ``final`` ends the recording: remaining samples that fill no window are dropped, as in Kaldi.

        Raises:
            ValueError: samples that ``to_kaldi_scale`` refuses, or a ``final`` that is not true or false.
            RuntimeError: the recording has ended.
        """
        final = as_bool(final, "final")
        if self.finished:
            raise RuntimeError("push after final=True: the recording has ended, start a new stream or session")
        waiting = np.concatenate([self.tail, to_kaldi_scale(samples)])
        frames = _frames(waiting)
        self.tail = waiting[:0] if final else waiting[len(frames) * SHIFT :]  # from the start of the next window on
        self.finished = final
        return frames


def filter_banks(samples: ArrayLike, sample_rate: float = SAMPLE_RATE) -> np.ndarray:
    """Return Kaldi's log-mel filter banks (frames, 80), float32, of a whole recording (N,); a frame every 10 ms.

    25 ms Povey windows, pre-emphasis 0.97, mean removed per window, 80 mel bins from 20 Hz to 8 kHz, natural logarithm
    of the power: fairseq's features.

    Raises:
        ValueError: another rate, samples that ``to_kaldi_scale`` refuses, or audio shorter than one window.
    """
    check_sample_rate(sample_rate)
    samples = as_array(samples, "samples")
    if samples.ndim == 1 and (count := len(samples)) < WINDOW:
        problem = "too short" if count else "empty"
        raise ValueError(f"audio of {count} samples is {problem}: leave it out, a frame needs {WINDOW} (25 ms)")
    return FilterBankStream(sample_rate).push(samples, final=True)


class GlobalCMVN:
    """Mean and standard deviation of each bin over a whole corpus, from running sums.

    Sums are float64, so no features are kept; ``merge`` adds the sums of other processes. The file has fairseq's
    format: an npz with ``mean`` and ``std``, (80,) float32 each.
    """

    SMALLEST_VARIANCE = 1e-8

    def __init__(self, num_bins: int = NUM_BINS) -> None:
        self.count = 0
        self.total = np.zeros(num_bins)
        self.squares = np.zeros(num_bins)

    def add(self, frames: ArrayLike) -> GlobalCMVN:
        """Add frames (n, bins).

        Raises:
            ValueError: another shape.
        """
        frames = as_array(frames, "frames")
        if frames.ndim != 2 or frames.shape[1] != len(self.total):
            raise ValueError(f"frames have shape {frames.shape}, but (n, {len(self.total)}) is needed")
        frames = frames.astype(np.float64)
        self.count += len(frames)
        self.total += frames.sum(axis=0)
        self.squares += np.square(frames).sum(axis=0)
        return self

    def merge(self, other: GlobalCMVN) -> GlobalCMVN:
        """Add all frames of ``other``."""
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        return self

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation, (bins,) float32 each.

        Raises:
            ValueError: no frame was added.
        """
        if self.count == 0:
            raise ValueError("no frame was added, so there is no mean: is the training split empty?")
        mean = self.total / self.count
        variance = np.maximum(self.squares / self.count - mean**2, self.SMALLEST_VARIANCE)
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)

    def save(self, path: Path | str) -> None:
        """Write ``mean`` and ``std`` for fairseq's ``global_cmvn`` transform."""
        mean, std = self.statistics()
        with Path(path).open("wb") as file:  # given a path, numpy would add .npz to another suffix
            np.savez(file, mean=mean, std=std)

    @staticmethod
    def load(path: Path | str, num_bins: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of a file that ``save`` wrote, (bins,) float32 each.

        Args:
            path: the npz file.
            num_bins: bins of the features that will be normalised; ``None``: not checked.

        Raises:
            ValueError: the file is missing or broken, or is not of such features.
        """
        fix = "copy it again from the folder of the training data, or prepare the data again"
        check_file(Path(path), fix)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                mean, std = (np.asarray(arrays[name]) for name in ("mean", "std"))
        except Exception as error:  # numpy and zipfile raise a dozen types here, all for a file that cannot be used
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path} is not an npz of mean and std ({reason}): {fix}") from error
        for name, array in (("mean", mean), ("std", std)):
            if not np.issubdtype(array.dtype, np.floating) or array.ndim != 1 or num_bins not in (None, len(array)):
                wanted = "a float for each bin" if num_bins is None else f"{num_bins} floats, one for each bin"
                raise ValueError(f"{path}: {name} is not {wanted} ({array.dtype} {array.shape}): {fix}")
            if bad := np.flatnonzero(~np.isfinite(array) | ((array <= 0) & (name == "std"))).tolist():
                wanted = "a number" if name == "mean" else "a number above 0"
                raise ValueError(f"{path}: {name} of bin {bad[0]} is not {wanted} ({array[bad[0]]}): {fix}")
        if len(mean) != len(std):
            raise ValueError(f"{path}: mean has {len(mean)} bins, but std has {len(std)}: {fix}")
        return mean.astype(np.float32), std.astype(np.float32)
