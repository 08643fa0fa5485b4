"""Reading speech files, with checks that keep a wrong file from becoming wrong features."""

from __future__ import annotations

import io
import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile

from mla_fairseq.files import unusable
from mla_fairseq.speech.resample import Samples
from mla_fairseq.speech.samples import LARGEST_FLOAT, SAMPLE_RATE

BLOCK = 1 << 20  # samples of each channel that are read at once
UNKNOWN = 1 << 62  # libsndfile's length of a file that does not know its own is above
CONTAINERS: dict[bytes, tuple[bytes, Literal["little", "big"]]] = {
    b"RIFF": (b"data", "little"),
    b"RIFX": (b"data", "big"),
    b"FORM": (b"SSND", "big"),
}
"""First bytes of wav and aiff files: the name of the chunk that has the samples, and the byte order of sizes."""
STREAMED = 0x7FFF_F000  # programs that write to a pipe do not know the size: they name a number from here to 2^32
FOREIGN = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".mkv")  # formats that libsndfile does not read
CONVERT = "convert it, for example with `ffmpeg -i {} -ar 16000 -ac 1 OUT.wav`"
RATES = (1_000, 1_000_000)  # Hz; beyond them a header is broken, and resampling might fill the memory


def audio_length(path: Path | str) -> int:
    """Return the number of samples of a mono 16 kHz file.

    Raises:
        ValueError: a file that is missing, not readable, empty or of another format; the message names the file.
    """
    path = Path(path)
    if fault := unusable(path):
        raise ValueError(f"{path} {fault}: copy it again, or remove its segments from the list")
    with open_audio(path) as info:
        pass
    fix = f"convert it, for example with `sox {path.name} -r {SAMPLE_RATE} -c 1 OUT.wav`"
    if info.channels != 1:
        raise ValueError(f"{path}: {info.channels} channels, but one is needed: {fix}")
    if info.samplerate != SAMPLE_RATE:
        raise ValueError(f"{path}: {info.samplerate} samples per second, but {SAMPLE_RATE} are needed: {fix}")
    if info.frames == 0:
        raise ValueError(f"{path}: empty audio: record or copy it again, or leave it out")
    return info.frames


def read_audio(path: Path | str, offset: int = 0, frames: int = -1) -> np.ndarray:
    """Return samples [offset, offset + frames) of a mono 16 kHz file, (frames,) float32 in [-1, 1]; -1: to the end.

    Raises:
        ValueError: a file that ``audio_length`` refuses, samples beyond its end, not finite or far above full scale,
            or numbers that are no integers; the message names the file.
    """
    path = Path(path)
    try:
        offset, frames = operator.index(offset), operator.index(frames)
    except TypeError as error:
        raise ValueError(f"{path}: offset and frames must be integers, but are {offset!r} and {frames!r}") from error
    length = audio_length(path)
    stop = length if frames < 0 else offset + frames
    if not 0 <= offset <= stop <= length:
        raise ValueError(
            f"{path}: has {length} samples, but the segment is from {offset} to {stop}: copy the file again if it is "
            "cut short, or use the segment list of this file"
        )
    with open_audio(path) as file:
        file.seek(offset)
        samples = file.read(stop - offset, dtype="float32")
        if len(samples) != stop - offset:  # the header promises more than the file has
            raise ValueError(f"ends after {offset + len(samples)} of {length} samples: copy it again")
        check_samples(samples[:, None], offset, SAMPLE_RATE)
    return samples


def wav_bytes(samples: np.ndarray) -> bytes:
    """Return samples (N,) at 16 kHz, float in [-1, 1] or int16, as a mono 16-bit wav file."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def check_recording(path: Path) -> None:
    """Check that a file of any format and rate has one channel of usable samples.

    Raises:
        ValueError: it is not so; the message names the file.
    """
    _check_usable(path)
    with open_audio(path) as file:
        if file.channels != 1:
            raise ValueError(
                f"{file.channels} channels, but one is needed: convert it, for example with `sox {path.name} -c 1 "
                "OUT.wav`"
            )
        for _ in _checked(file):
            pass


def load_audio(path: Path) -> np.ndarray:
    """Return a whole file of any format that libsndfile reads, (N,) float32 at 16 kHz.

    Channels are averaged and the rate is converted. A mono 16 kHz file gives what ``read_audio`` gives.

    Raises:
        ValueError: a file that is missing, not readable, empty, or without usable samples; the message names the file.
    """
    return np.concatenate(list(audio_blocks(path)))


def audio_blocks(path: Path) -> Iterator[np.ndarray]:
    """Yield the samples of a file as ``load_audio`` returns them, block by block: only one block is in memory.

    Raises:
        ValueError: as ``load_audio``.
    """
    path = Path(path)
    _check_usable(path)
    samples = Samples(str(path))
    with open_audio(path) as file:
        for block in _checked(file):
            samples.add(block.mean(axis=1), file.samplerate)
            yield samples.take(final=False)
    yield samples.take(final=True)


def _check_usable(path: Path) -> None:
    if fault := unusable(path):
        raise ValueError(f"{path} {fault}: {'give the files in it' if os.path.isdir(path) else 'correct the name'}")


@contextmanager
def open_audio(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a file; errors inside the block become one that names the file.

    Raises:
        ValueError: the file is not audio, or is cut short, or an error inside the block.
    """
    try:
        # by its descriptor: soundfile encodes names as UTF-8, which they need not be; and without a buffer, because
        # libsndfile begins where the descriptor is
        with path.open("rb", buffering=0) as file:
            _check_whole(file)
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                yield sound
    except (soundfile.LibsndfileError, OSError) as error:
        fix = CONVERT.format(path.name) if path.suffix.lower() in FOREIGN else "record or copy it again"
        raise ValueError(f"{path}: cannot be read as audio ({error}): {fix}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_whole(file: BinaryIO) -> None:
    """Check that a wav or aiff file has all its samples: libsndfile reads one that is cut short as a shorter one.

    Raises:
        ValueError: the file has fewer bytes of samples than its header names.
    """
    total = os.fstat(file.fileno()).st_size
    wanted, order = CONTAINERS.get(file.read(12)[:4], (b"", "little"))
    for _ in range(1_000 if wanted else 0):  # chunks in front of the samples are few, unless the file is broken
        name, size = file.read(4), int.from_bytes(file.read(4), order)
        left = total - file.tell()
        if name == wanted and left < size < STREAMED:
            raise ValueError(f"ends after {left} of {size} bytes of samples: copy it again")
        if name == wanted or left <= size:
            break
        file.seek(size + size % 2, os.SEEK_CUR)  # chunks begin at even places
    file.seek(0)


def check_samples(samples: np.ndarray, start: int, rate: int) -> None:
    """Check samples (N, channels) of a file, of which the first is its sample ``start``.

    Raises:
        ValueError: one is not finite or far beyond full scale; the message names its place in seconds.
    """
    loudest = np.abs(samples).max(axis=1, initial=0)
    bad = np.flatnonzero(~(loudest <= LARGEST_FLOAT))  # ``not <=`` is true for NaN
    if len(bad):
        value, second = loudest[bad[0]], (start + bad[0]) / rate
        if np.isfinite(value):
            raise ValueError(
                f"the sample at {second:.2f} s is {value:g} times full scale: export the recording again with a lower "
                "level, or leave it out"
            )
        raise ValueError(f"not finite at {second:.2f} s: repair the recording, or leave it out")


def _checked(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    """Yield all samples (N, channels) of an open file, in blocks.

    Raises:
        ValueError: the file has a broken header, is empty or cut short, or a sample cannot be used.
    """
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise ValueError(f"{file.samplerate} samples per second are no rate of speech: repair the file")
    count, promised = 0, file.frames
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        check_samples(block, count, file.samplerate)
        yield block
        count += len(block)
    if count == 0:
        raise ValueError("empty audio: record or copy it again, or leave it out")
    if count < promised < UNKNOWN:
        raise ValueError(f"ends after {count} of {promised} samples: copy it again")
