"""A corpus in MuST-C's layout, small enough to prepare within a test."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mla_fairseq.data.mustc import MuSTC

SECONDS = 12.0
SPLITS = {"train": 6, "dev": 2, "tst-COMMON": 2}
WORDS = ("ein", "haus", "am", "see", "liegt", "still", "und", "der", "wald", "rauscht", "leise", "über", "dem", "tal")


@dataclass
class Talk:
    """One wav and its segments: (offset, duration) in seconds, in the order of the yaml."""

    segments: list[tuple[str, str]] = field(default_factory=lambda: [("2.0", "0.5"), ("10.25", "0.75"), ("0", "0.8")])
    seconds: float = SECONDS


@cache
def wav(seconds: float, seed: int) -> bytes:
    """Return a wav file of noise; cached, because nearly every test writes the same ten."""
    samples = (2_000 * np.random.default_rng(seed).standard_normal(round(seconds * 16_000))).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV")
    return file.getvalue()


def write_split(folder: Path, split: str, talks: dict[str, Talk], languages: tuple[str, str] = ("en", "de")) -> None:
    """Write wavs, yaml and texts; each line of text names its talk and offset, then has words of its own."""
    wavs, texts = folder / "data" / split / "wav", folder / "data" / split / "txt"
    wavs.mkdir(parents=True)
    texts.mkdir(parents=True)
    rows = [(name, *segment) for name, talk in talks.items() for segment in talk.segments]
    entries = [f"- {{duration: {d}, offset: {o}, rW: 1, uW: 0, speaker_id: 007, wav: {n}.wav}}" for n, o, d in rows]
    (texts / f"{split}.yaml").write_text("\n".join(entries) + "\n", encoding="utf-8")
    for language in languages:
        lines = [f"{language} {name} {offset} {words(index)}" for index, (name, offset, _) in enumerate(rows)]
        (texts / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for number, (name, talk) in enumerate(talks.items()):
        (wavs / f"{name}.wav").write_bytes(wav(talk.seconds, number + 100 * len(split)))


def words(seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, 6))


@pytest.fixture
def make_pair(tmp_path: Path) -> Callable[..., Path]:
    """Make a pair folder; `splits` maps names to numbers of talks."""

    def make(name: str = "en-de", splits: dict[str, int] = SPLITS, **options: object) -> Path:
        for split, count in splits.items():
            talks = {f"ted_{split}_{number}": Talk() for number in range(count)}
            write_split(tmp_path / name, split, talks, **options)
        return tmp_path / name

    return make


@pytest.fixture
def pair(make_pair: Callable[..., Path]) -> Path:
    """DATA/en-de with train, dev and tst-COMMON: 18, 6 and 6 segments."""
    return make_pair()


@pytest.fixture
def corpus(pair: Path) -> MuSTC:
    return MuSTC(pair)
