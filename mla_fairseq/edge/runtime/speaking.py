"""The part of ``mla-edge`` that speaks: texts in, wav files out."""

from __future__ import annotations

import io
import time
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mla_fairseq.edge.runtime.speaker import EdgeSpeaker
from mla_fairseq.files import make_folder, write_bytes


def speak_all(
    model: EdgeSpeaker, sentences: Sequence[Sequence[str]], output: Path, speaker: str | None = None, seed: int = 1
) -> None:
    """Write ``0001.wav`` and so on, one for the symbols of each sentence, and print a line for each.

    Raises:
        ValueError: a sentence that the model cannot speak, or an unknown speaker.
        OSError: a file cannot be written.
    """
    make_folder(output)
    for number, symbols in enumerate(sentences, 1):
        print(speak(model, symbols, output / f"{number:04d}.wav", speaker, seed), flush=True)


def speak(model: EdgeSpeaker, symbols: Sequence[str], path: Path, speaker: str | None, seed: int) -> str:
    """Write the wav file of a sentence, and return a line about it.

    Raises:
        ValueError, OSError: see ``speak_all``.
    """
    start = time.perf_counter()
    utterance = model.say(symbols, speaker, seed)
    frames = np.concatenate(list(utterance))
    decoded = time.perf_counter()
    samples = model.speak(frames)
    spoken = time.perf_counter()
    write_bytes(path, as_wav(samples, model.sample_rate))
    seconds = len(samples) / model.sample_rate
    cut = "" if utterance.ended else ", ended by the limit of lengths"
    return (
        f"{path}: {seconds:.2f} s of speech, real-time factor {(decoded - start) / seconds:.3f} to decode, "
        f"{(spoken - decoded) / seconds:.3f} for Griffin-Lim{cut}"
    )


def as_wav(samples: NDArray, rate: int) -> bytes:
    """Return a wav file of samples (time,) with 16 bits each; louder ones than 1 are scaled down, not clipped."""
    loudest = max(1.0, float(np.abs(samples).max(initial=0.0)))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((samples / loudest * (2**15 - 1)).round().astype("<i2").tobytes())
    return file.getvalue()
