"""Speech from files and microphones, in blocks. Needs numpy alone; other packages extend what can be read.

With soundfile and soxr installed, files of any format, rate and number of channels are read, as in training. Without
them, wav files of 16 bits at 16 kHz. sounddevice records.
"""

from __future__ import annotations

import signal
import wave
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import numpy as np
from numpy.typing import NDArray

from mla_fairseq.files import check_file
from mla_fairseq.speech.samples import INT16_RANGE, SAMPLE_RATE

BLOCK = 1_600  # samples: 0.1 s
INSTALL = "pip install soundfile soxr"


def read_blocks(path: Path) -> Iterator[NDArray]:
    """Yield the samples of a file, (n,) float32 at 16 kHz, in blocks of at most 0.1 s; channels are averaged.

    Raises:
        ValueError: the file is missing, empty or cut short, or needs packages that are not installed.
    """
    try:
        from mla_fairseq.speech.audio import audio_blocks
    except ModuleNotFoundError:
        blocks = _wav_blocks(check_file(path, "correct the name"))
    else:
        blocks = audio_blocks(path)
    for block in blocks:
        yield from np.split(block, range(BLOCK, len(block), BLOCK))


def _wav_blocks(path: Path) -> Iterator[NDArray]:
    """Yield the samples of a wav file of 16 bits at 16 kHz.

    Raises:
        ValueError: the file is of another format, empty or cut short.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, length = file.getparams()[:4]
            if (rate, width) != (SAMPLE_RATE, 2):
                raise ValueError(f"{path} has {rate} samples per second, {8 * width} bits each: {_other_format(path)}")
            if not length:
                raise ValueError(f"{path}: empty audio: record or copy it again, or leave it out")
            size = 2 * channels
            while data := file.readframes(BLOCK):
                whole = data[: len(data) // size * size]
                length -= len(whole) // size
                samples = np.frombuffer(whole, "<i2").reshape(-1, channels)
                yield samples.mean(1, dtype=np.float32) / np.float32(INT16_RANGE)
            if length:
                raise ValueError(f"{path} lacks its last {length} samples: copy it again")
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends in its header"  # EOFError has no text
        raise ValueError(f"{path} is not a wav file of integers ({reason}): {_other_format(path)}") from error


def _other_format(path: Path) -> str:
    return f"{INSTALL}, or convert it with `sox {path.name} -r {SAMPLE_RATE} -b 16 OUT.wav`"


def record() -> Iterator[NDArray]:
    """Yield what the microphone records, (1600,) int16 at 16 kHz, until Ctrl-C, which ends the recording alone.

    Raises:
        ValueError: sounddevice is not installed, or there is no microphone that it can open.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: it does not find the library PortAudio
        raise ValueError(f"the microphone needs sounddevice ({error}): pip install sounddevice") from error
    stopped = Event()
    before = signal.signal(signal.SIGINT, lambda *_: stopped.set())  # an exception could cut a step of the model short
    try:
        with sounddevice.InputStream(samplerate=SAMPLE_RATE, channels=1, dtype="int16", latency="high") as stream:
            while not stopped.is_set():
                yield stream.read(BLOCK)[0][:, 0]
    except sounddevice.PortAudioError as error:
        raise ValueError(f"the microphone cannot be opened ({error}): connect one, or choose it as default") from error
    finally:
        signal.signal(signal.SIGINT, before)
