"""Tiny corpora in the layouts of published ones, with recordings of noise in the formats that those have."""

import json
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

SPLITS = {"train": 4, "dev": 2, "test": 2}
SENTENCES = ("das haus am see", "ein wald rauscht", "der berg ist still", "im tal liegt schnee")


@cache
def audio(form: str, rate: int, seconds: float, seed: int, channels: int = 1) -> bytes:
    """Return a file of noise; cached, because many tests write the same."""
    samples = 0.05 * np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))
    file = BytesIO()
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def tsv(path: Path, rows: list[dict[str, str]]) -> Path:
    return write(path, "".join("\t".join(row) + "\n" for row in [list(rows[0]), *(row.values() for row in rows)]))


def texts(split: str, language: str, count: int) -> list[str]:
    return [f"{language} {split} {SENTENCES[number % 4]} {number}" for number in range(count)]


def make_covost2(data: Path, source: str = "en", target: str = "de") -> Path:
    """Write DATA/en: mp3 clips of 1 s at 48 kHz, ``validated.tsv`` and the table of translations."""
    validated, table = [], []
    for split, count in SPLITS.items():
        for number, (one, other) in enumerate(
            zip(texts(split, source, count), texts(split, target, count), strict=True)
        ):
            name = f"common_voice_{source}_{split}{number}.mp3"
            write(data / source / "clips" / name, audio("MP3", 48_000, 1.0, number))
            validated.append({"client_id": f"client{number}", "path": name, "sentence": one, "up_votes": "2"})
            kind = "train_covost" if split == "train" and number % 2 else split
            table.append({"path": name, "translation": other, "split": kind})
    tsv(data / source / "validated.tsv", validated[::-1])
    tsv(data / source / f"covost_v2.{source}_{target}.tsv", table)
    return data / f"{source}-{target}"


def make_europarl_st(data: Path, source: str = "en", target: str = "de") -> Path:
    """Write DATA/en: speeches of 4 s at 44.1 kHz as flac, two segments each."""
    for split, count in {**SPLITS, "train-noisy": 2}.items():
        folder = data / source / target / split
        names = [f"{source}.2008.{split}.3-{number}" for number in range((count + 1) // 2)]
        for number, name in enumerate(names):
            write(data / source / "audios" / f"{name}.flac", audio("FLAC", 44_100, 4.0, 10 + number))
        lines = [
            f"{names[number // 2]} {2.5 - 2 * (number % 2):.2f} {3.75 - 2 * (number % 2):.2f}"
            for number in range(count)
        ]
        write(folder / "segments.lst", "\n".join(lines) + "\n")
        write(folder / "speeches.lst", "\n".join(names) + "\n")
        write(folder / "speakers.lst", "\n".join(f"speaker_{name[-1]}" for name in names) + "\n")
        for language in (source, target):
            write(folder / f"segments.{language}", "\n".join(texts(split, language, count)) + "\n")
    return data / f"{source}-{target}"


def make_mtedx(data: Path, source: str = "es", target: str = "en") -> Path:
    """Write DATA/es-en: talks of 4 s, stereo flac at 22.05 kHz; the yaml names them as wav."""
    pair = data / f"{source}-{target}"
    for split, count in {"train": 4, "valid": 2, "test": 2}.items():
        folder = pair / "data" / split
        entries = [
            f"- {{speaker_id: s1, wav: talk{split}.wav, offset: {number * 0.9:.2f}, duration: 0.8}}"
            for number in range(count)
        ]
        write(folder / "wav" / f"talk{split}.flac", audio("FLAC", 22_050, 4.0, 20, 2))
        write(folder / "txt" / f"{split}.yaml", "\n".join(entries) + "\n")
        for language in (source, target):
            write(folder / "txt" / f"{split}.{language}", "\n".join(texts(split, language, count)) + "\n")
    return pair


def make_manifest(data: Path, name: str = "my-en-de", form: str = "tsv") -> Path:
    """Write DATA/my-en-de/manifest: one table per split, with a teacher's translations of the training set."""
    for split, count in SPLITS.items():
        path = write(data / "audio" / f"{split}.ogg", audio("OGG", 16_000, 8.0, 30))
        sources, targets = (texts(split, language, count) for language in ("en", "de"))
        rows = [
            {"audio": f"../../audio/{path.name}", "offset": f"{number * 1.5}", "duration": "1.25", "src_text": one,
             "tgt_text": other, "speaker": "me", "teacher": f"lehrer {other}"}
            for number, (one, other) in enumerate(zip(sources, targets, strict=True))
        ]  # fmt: skip
        table = data / name / "manifest" / f"{split}.{form}"
        tsv(table, rows) if form == "tsv" else write(table, "".join(f"{json.dumps(row)}\n" for row in rows))
    return data / name


MAKERS: dict[str, Callable[[Path], Path]] = {
    "covost2": make_covost2,
    "europarl_st": make_europarl_st,
    "mtedx": make_mtedx,
    "manifest": make_manifest,
}
