"""Reading speech files, with checks that keep a wrong file from becoming wrong features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from mla_fairseq.speech.features import SAMPLE_RATE


def audio_length(path: Path) -> int:
    """Return the number of samples of a mono 16 kHz file.

    Raises:
        ValueError: a file that is missing, not readable, empty or of another format; the message names the file.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing: copy it again, or remove its segments from the list")
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as audio ({error}): record or copy it again") from error
    fix = f"convert it, for example with `sox {path.name} -r {SAMPLE_RATE} -c 1 OUT.wav`"
    if info.channels != 1:
        raise ValueError(f"{path}: {info.channels} channels, but one is needed: {fix}")
    if info.samplerate != SAMPLE_RATE:
        raise ValueError(f"{path}: {info.samplerate} samples per second, but {SAMPLE_RATE} are needed: {fix}")
    if info.frames == 0:
        raise ValueError(f"{path}: empty audio: record or copy it again, or leave it out")
    return info.frames


def read_audio(path: Path, offset: int = 0, frames: int = -1) -> np.ndarray:
    """Return samples [offset, offset + frames) of a mono 16 kHz file, (frames,) float32 in [-1, 1]; -1: to the end.

    Raises:
        ValueError: a file that ``audio_length`` refuses, or samples beyond its end; the message names the file.
    """
    path = Path(path)
    length = audio_length(path)
    stop = length if frames < 0 else offset + frames
    if not 0 <= offset <= stop <= length:
        raise ValueError(
            f"{path}: has {length} samples, but the segment is from {offset} to {stop}: copy the file again if it is "
            "cut short, or use the segment list of this file"
        )
    try:
        samples, _ = soundfile.read(str(path), start=offset, frames=stop - offset, dtype="float32")
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as audio ({error}): record or copy it again") from error
    if len(samples) != stop - offset:  # the header promises more than the file has
        raise ValueError(f"{path}: ends after {offset + len(samples)} of {length} samples: copy it again")
    return samples
