"""A voice that whistles: every letter is a tone, so that a model has something to learn."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
LETTERS = "abcdef"
SECONDS = 0.08  # of a letter


def whistle(text: str, rate: int = RATE) -> np.ndarray:
    """Samples (time,) of a word, with a little silence around it."""
    time = np.arange(int(SECONDS * rate)) / rate
    tones = [np.sin(2 * np.pi * 300 * (1 + LETTERS.index(letter)) * time) / 2 for letter in text]
    silence = np.zeros(rate // 4)
    return np.concatenate((silence, *tones, silence)).astype(np.float32)


def write_voice(folder: Path, clips: int = 24, rate: int = RATE) -> Path:
    """LJSpeech's layout with so many whistled words."""
    rng = np.random.default_rng(3)
    (folder / "wavs").mkdir(parents=True)
    lines = []
    for i in range(clips):
        text = "".join(rng.choice(list(LETTERS), size=rng.integers(3, 9)))
        soundfile.write(folder / "wavs" / f"w{i:02d}.wav", whistle(text, rate), rate)
        lines.append(f"w{i:02d}|{text.upper()}|{text}\n")
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    return folder
