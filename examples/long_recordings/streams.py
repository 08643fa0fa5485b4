"""Join the segments of a split to long recordings, and write them as a corpus in MuST-C's layout."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from tqdm import tqdm

from mla_fairseq.data.corpus import Corpus, Segment
from mla_fairseq.files import write_bytes, write_text
from mla_fairseq.speech import SAMPLE_RATE, read_segment, wav_bytes

log = logging.getLogger(__name__)

FRAME = 160  # samples: 10 ms
QUIET = 40.0  # dB below the loudest frame: what is quieter at the ends of a segment is no speech


@dataclass(frozen=True)
class Shape:
    """How segments are joined.

    Attributes:
        pause: shortest and longest pause before each segment and after the last one, in seconds.
        floor: level of the noise in these pauses, in dB of full scale; ``None``: digital silence.
        noise: level of white noise that is added to the whole recording; ``None``: none.
        trimmed: remove silence at the ends of each segment, so that a pause of 0 leaves none.
        minutes: start another recording after so many minutes; ``None``: one recording.
        seed: seed of pauses and noise.
    """

    pause: tuple[float, float] = (0.12, 0.36)
    floor: float | None = -72.0
    noise: float | None = None
    trimmed: bool = False
    minutes: float | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        low, high = self.pause
        if not 0 <= low <= high < np.inf:
            raise ValueError(f"the pauses are from {low} to {high} s: give two numbers, 0 or more, the smaller first")
        for name, level in (("noise in the pauses", self.floor), ("noise", self.noise)):
            if level is not None and not level <= 0:
                raise ValueError(f"the {name} has {level} dB: give a level below full scale, such as -50")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"a recording of {self.minutes} minutes is impossible: give more than 0")


def white(samples: int, decibels: float | None, generator: np.random.Generator) -> np.ndarray:
    """Return white noise (samples,) float32 of a level in dB of full scale; ``None``: zeros."""
    if decibels is None:
        return np.zeros(samples, np.float32)
    return generator.standard_normal(samples, np.float32) * np.float32(10 ** (decibels / 20))


def trim(samples: np.ndarray) -> np.ndarray:
    """Return samples (N,) without the frames at both ends that are ``QUIET`` dB below the loudest one."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.square(frames).mean(axis=1)
    loud = np.flatnonzero(power > power.max(initial=0) * 10 ** (-QUIET / 10))
    return samples[loud[0] * FRAME : (loud[-1] + 1) * FRAME] if len(loud) else samples


def join(pieces: Sequence[np.ndarray], shape: Shape, name: str = "") -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return one recording (N,) float32, and the start and length of each piece in it, in samples.

    Recordings of another name have other pauses and noise.
    """
    random, parts, places, position = Random(f"{shape.seed} {name}"), [], [], 0
    generator = np.random.default_rng(random.getrandbits(64))
    for piece in map(trim, pieces) if shape.trimmed else pieces:
        silence = white(round(random.uniform(*shape.pause) * SAMPLE_RATE), shape.floor, generator)
        parts += [silence, piece]
        places.append((position + len(silence), len(piece)))
        position += len(silence) + len(piece)
    parts.append(white(round(random.uniform(*shape.pause) * SAMPLE_RATE), shape.floor, generator))
    samples = np.concatenate(parts)
    return samples + white(len(samples), shape.noise, generator), places


def recordings(lengths: Sequence[int], minutes: float | None) -> Iterator[slice]:
    """Yield the segments of each recording: a new one begins once the last has so many minutes of speech.

    Args:
        lengths: of the segments, in samples.
        minutes: ``None``: one recording.
    """
    start, total = 0, 0
    for number, length in enumerate(lengths, 1):
        total += length
        if number == len(lengths) or (minutes is not None and total >= minutes * 60 * SAMPLE_RATE):
            yield slice(start, number)
            start, total = number, 0


def file_name(number: int) -> str:
    """Return the name of a recording's wav file; it is a part of the recording's seed."""
    return f"stream_{number:03d}.wav"


def write_streams(corpus: Corpus, split: str, output: Path, shape: Shape, limit: int | None = None) -> list[Path]:
    """Write OUTPUT/PAIR/data/SPLIT with the first ``limit`` segments of a split; return the wav files.

    The yaml is written last. Files of an earlier run are replaced.

    Raises:
        ValueError: a corpus that does not follow the layout.
    """
    segments = corpus.read(split)[:limit]
    folder = output / corpus.root.name / "data" / split
    entries, wavs = [], []
    parts = list(recordings([one.length for one in segments], shape.minutes))
    for number, part in enumerate(tqdm(parts, desc=split, unit="recording")):
        name, group = file_name(number), segments[part]
        samples, places = join([read_segment(one.wav, one.start, one.length) for one in group], shape, name)
        write_bytes(folder / "wav" / name, wav_bytes(samples))
        wavs.append(folder / "wav" / name)
        entries += [_entry(replace(one, wav=wavs[-1]), *place) for one, place in zip(group, places, strict=True)]
        log.info("%s: %d segments, %.1f minutes", wavs[-1], len(group), len(samples) / SAMPLE_RATE / 60)
    for language, name in zip(corpus.languages, ("source", "target"), strict=True):
        write_text(folder / "txt" / f"{split}.{language}", "".join(f"{getattr(one, name)}\n" for one in segments))
    write_text(folder / "txt" / f"{split}.yaml", "".join(entries))
    return wavs


def _entry(segment: Segment, start: int, length: int) -> str:
    """Return a line of MuST-C's yaml; a line of JSON is YAML, too."""
    seconds = {"duration": length / SAMPLE_RATE, "offset": start / SAMPLE_RATE}
    return f"- {json.dumps({**seconds, 'speaker_id': segment.speaker, 'wav': segment.wav.name}, ensure_ascii=False)}\n"
