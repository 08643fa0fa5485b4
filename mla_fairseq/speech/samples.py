"""Samples of speech: their scale, how many frames they have, and checks of what a caller passes. Needs numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

SAMPLE_RATE = 16_000
FRAMES_PER_STATE = 4  # of 10 ms; each subsampler halves their number twice
WINDOW = 400  # samples in one frame: 25 ms
SHIFT = 160  # samples between the starts of two frames: 10 ms
INT16_RANGE = 32_768.0
LARGEST_FLOAT = 2.0  # a resampler may overshoot 1; samples in the 16-bit range are far above


def num_frames(num_samples: int) -> int:
    """Return the number of frames: only windows that are completely inside the signal count (Kaldi's snip_edges)."""
    return max(0, 1 + (num_samples - WINDOW) // SHIFT)


def as_array(values: Any, name: str) -> np.ndarray:
    """Return the numbers in an array, a list or a torch tensor on any device; ``name`` is what messages call them.

    Raises:
        ValueError: something else, such as a path or lists of several lengths.
    """
    if hasattr(values, "detach"):  # torch, which this module need not import; numpy has no bfloat16
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} are lists of several lengths ({error}): give an array") from error
    if array.ndim == 0:
        raise ValueError(f"{name} are no array ({type(values).__name__}): give an array, a list or a tensor")
    return array


def as_bool(value: object, name: str) -> bool:
    """Return a flag: ``True`` or ``False``, also of numpy or torch, or 1 or 0; ``name`` is what the message calls it.

    Raises:
        ValueError: something else, such as a text, which Python would take for true.
    """
    if isinstance(value, str | bytes) or value is None or getattr(value, "ndim", False) or value not in (0, 1):
        raise ValueError(f"{name} must be true or false, but is {value!r}")
    return bool(value)


def to_kaldi_scale(samples: ArrayLike) -> np.ndarray:
    """Return samples (N,) as float32 in the 16-bit range, the scale of Kaldi's log energies.

    ``samples`` is an array, list or tensor of one channel, float in [-1, 1] or int16. Floats up to 2 are accepted,
    because a resampler may overshoot 1.

    Raises:
        ValueError: another shape, dtype or range, NaN, or infinity.
    """
    samples = as_array(samples, "samples")
    if samples.ndim != 1:
        raise ValueError(
            f"samples have shape {samples.shape}, but one channel (N,) is needed: "
            "pick or average the channels first, for example `samples.mean(axis=1)`"
        )
    if np.issubdtype(samples.dtype, np.int16):  # of either byte order
        return samples.astype(np.float32)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"samples are {samples.dtype}, but float in [-1, 1] or int16 is needed: convert them first")
    if samples.size and not (loudest := np.abs(samples).max()) <= LARGEST_FLOAT:  # ``not <=`` is true for NaN
        fix = "divide by 32768 or pass int16" if np.isfinite(loudest) else "repair the recording"
        within = f"at most {LARGEST_FLOAT:g}"
        raise ValueError(f"samples reach {loudest}, but floats must be in [-1, 1] ({within} if resampled): {fix}")
    return samples.astype(np.float32) * np.float32(INT16_RANGE)
