"""Reading speech from files, with the checks that keep a wrong file from becoming wrong features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from mla_fairseq.speech.features import SAMPLE_RATE


def audio_length(path: Path) -> int:
    """How many samples the file holds. Raises ValueError unless it is readable, not empty, one channel, 16 kHz."""
    if not Path(path).is_file():
        raise ValueError(f"{path} is missing: copy it again, or take its segments out of the list")
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as audio ({error}): record or copy it again") from error
    mend = f"convert it, for example with `sox {path.name} -r {SAMPLE_RATE} -c 1 OUT.wav`"
    if info.channels != 1:
        raise ValueError(f"{path}: {info.channels} channels, but one is needed: {mend}")
    if info.samplerate != SAMPLE_RATE:
        raise ValueError(f"{path}: {info.samplerate} samples per second, but {SAMPLE_RATE} are needed: {mend}")
    if info.frames == 0:
        raise ValueError(f"{path}: empty audio: record or copy it again, or leave it out")
    return info.frames


def read_audio(path: Path, offset: int = 0, frames: int = -1) -> np.ndarray:
    """Samples [offset, offset + frames) of a mono 16 kHz file, (frames,) float32 in [-1, 1]; -1 reads to the end.

    Raises ValueError naming the file for a wrong format (see `audio_length`) or a stretch that lies beyond its end.
    """
    path = Path(path)
    length = audio_length(path)
    stop = length if frames < 0 else offset + frames
    if not 0 <= offset <= stop <= length:
        raise ValueError(
            f"{path}: samples {offset} to {stop} were asked for, but it holds {length}: "
            "the file is cut short, or the segment list belongs to another file"
        )
    samples, _ = soundfile.read(str(path), start=offset, frames=stop - offset, dtype="float32")
    if len(samples) != stop - offset:
        raise ValueError(f"{path}: ends after {offset + len(samples)} of {length} samples: copy it again")
    return samples
