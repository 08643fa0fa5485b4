"""One voice's recordings and what they say: LJSpeech's layout, or one speaker of a corpus in MuST-C's.

FOLDER/metadata.csv     NAME|text|normalised text, one line for each recording
FOLDER/wavs/NAME.wav
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import soundfile

from mla_fairseq.data.mustc import Corpus
from mla_fairseq.files import read_text
from mla_fairseq.speech import SAMPLE_RATE


@dataclass(frozen=True)
class Clip:
    """``length`` samples of ``wav`` from sample ``start`` on, at its own ``rate``, and what is said in it."""

    id: str
    wav: Path
    start: int
    length: int
    rate: int
    text: str
    speaker: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.length / self.rate


def read_clips(folder: Path, speaker: str | None = None) -> dict[str, list[Clip]]:
    """The clips of each split; LJSpeech's layout has one, ``all``.

    Raises:
        ValueError: neither layout is there, a recording cannot be used, or the speaker is unknown or not named.
    """
    folder = Path(folder)
    if (folder / "metadata.csv").is_file():
        if speaker is not None:
            raise ValueError(f"--speaker is {speaker}, but LJSpeech's layout names none: leave it out")
        return {"all": _ljspeech(folder)}
    if (folder / "data").is_dir():
        return _mustc(folder, speaker)
    raise ValueError(f"{folder} holds neither metadata.csv (LJSpeech's layout) nor data/SPLIT (MuST-C's)")


def split_clips(clips: list[Clip], dev: int | None, test: int | None, seed: int) -> dict[str, list[Clip]]:
    """Draw a development and a test set; ``None``: a twentieth each, at most 100.

    Raises:
        ValueError: nothing would be left to train on.
    """
    part = max(1, min(100, len(clips) // 20))
    dev, test = (part if size is None else size for size in (dev, test))
    if min(dev, test) < 1 or dev + test >= len(clips):
        raise ValueError(
            f"of {len(clips)} clips, {dev} (--dev) and {test} (--test) leave none to train on, or are none"
        )
    order = clips.copy()
    random.Random(seed).shuffle(order)
    parts = {"dev": order[:dev], "test": order[dev : dev + test], "train": order[dev + test :]}
    return {name: sorted(parts[name], key=lambda clip: clip.id) for name in ("train", "dev", "test")}


def _ljspeech(folder: Path) -> list[Clip]:
    listing = folder / "metadata.csv"
    clips = []
    for number, line in enumerate(read_text(listing).splitlines(), start=1):
        name, *texts = line.split("|")
        if not name or not texts or not texts[-1].strip():
            raise ValueError(f"{listing}:{number} is {line!r}, but NAME|text|normalised text is needed")
        wav = folder / "wavs" / f"{name}.wav"
        rate, length = _audio(wav)
        clips.append(Clip(name, wav, 0, length, rate, texts[-1].strip(), "ljspeech"))
    if not clips:
        raise ValueError(f"{listing} lists no recording")
    if twice := [name for name, count in Counter(clip.id for clip in clips).items() if count > 1]:
        raise ValueError(f"{listing} lists {twice[0]} twice")
    return clips


def _mustc(folder: Path, speaker: str | None) -> dict[str, list[Clip]]:
    corpus = Corpus(folder)
    segments = {split: corpus.read(split) for split in corpus.splits}
    spoken = Counter()
    for members in segments.values():
        for segment in members:
            spoken[segment.speaker] += segment.length
    there = ", ".join(
        f"{name or '(none)'} {length / SAMPLE_RATE / 3600:.2f} h" for name, length in spoken.most_common(9)
    )
    if speaker is None and len(spoken) > 1:
        raise ValueError(f"{folder} has several speakers: name one with --speaker: {there}")
    if speaker is not None and speaker not in spoken:
        raise ValueError(f"{folder} has no speaker {speaker!r}: there are {there}")
    found = {
        split: [
            Clip(one.id, one.wav, one.start, one.length, SAMPLE_RATE, one.source, one.speaker)
            for one in members
            if speaker in (None, one.speaker) and one.source
        ]
        for split, members in segments.items()
    }
    if not found.get("train"):
        raise ValueError(f"{folder} has no train split of the speaker {speaker!r}")
    return {split: clips for split, clips in found.items() if clips}


def _audio(path: Path) -> tuple[int, int]:
    """Samples per second, and how many there are."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: copy it again, or take its line out of metadata.csv")
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as audio ({error}): copy it again") from error
    if info.channels != 1:
        raise ValueError(f"{path}: {info.channels} channels, but one is needed: convert it")
    if info.frames == 0:
        raise ValueError(f"{path}: empty audio: copy it again, or take its line out of metadata.csv")
    return info.samplerate, info.frames
