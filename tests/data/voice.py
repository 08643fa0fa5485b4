"""A speaker that whistles: every letter is a tone, so that a model can learn it."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
LETTERS = "abcdef"
SECONDS = 0.08  # of a letter


def whistle(text: str, rate: int = RATE) -> np.ndarray:
    """Return samples (time,) of a word, with 0.25 s of silence before and after it."""
    time = np.arange(int(SECONDS * rate)) / rate
    tones = [np.sin(2 * np.pi * 300 * (1 + LETTERS.index(letter)) * time) / 2 for letter in text]
    silence = np.zeros(rate // 4)
    return np.concatenate((silence, *tones, silence)).astype(np.float32)


@cache
def _wav(text: str, rate: int) -> bytes:
    """Return a wav file of a whistled word; cached, because many tests write the same voice."""
    file = io.BytesIO()
    soundfile.write(file, whistle(text, rate), rate, format="WAV")
    return file.getvalue()


def write_voice(folder: Path, clips: int = 24, rate: int = RATE) -> Path:
    """Write whistled words in LJSpeech's layout; return the folder."""
    rng = np.random.default_rng(3)
    (folder / "wavs").mkdir(parents=True)
    lines = []
    for i in range(clips):
        text = "".join(rng.choice(list(LETTERS), size=rng.integers(3, 9)))
        (folder / "wavs" / f"w{i:02d}.wav").write_bytes(_wav(text, rate))
        lines.append(f"w{i:02d}|{text.upper()}|{text}\n")
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return folder
