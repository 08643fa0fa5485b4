"""A corpus of noise in MuST-C's layout, small enough to prepare and to train on in a test."""

import wave
from pathlib import Path

import numpy as np
import yaml

WORDS = ["ein", "der", "Hund", "Mann", "läuft", "sieht", "rote", "blaue", "zwei", "drei"]


def make_corpus(folder: Path, train: int = 24) -> None:
    """Write the pair en-de: ``train``, 4 and 4 utterances of half a second of noise."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("dev", 4), ("tst-COMMON", 4)):
        root = folder / "en-de" / "data" / split
        (root / "wav").mkdir(parents=True)
        (root / "txt").mkdir()
        segments = []
        for index in range(count):
            with wave.open(str(root / "wav" / f"{split}_{index}.wav"), "wb") as out:
                out.setparams((1, 2, 16000, 0, "NONE", ""))
                out.writeframes(random.integers(-3000, 3000, 8000, dtype=np.int16).tobytes())
            segments.append({"wav": f"{split}_{index}.wav", "offset": 0.0, "duration": 0.5, "speaker_id": "spk.1"})
        (root / "txt" / f"{split}.yaml").write_text(yaml.safe_dump(segments))
        lines = [" ".join(random.choice(WORDS, 3)) for _ in range(count)]
        for language in ("en", "de"):
            (root / "txt" / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
