"""Read the recordings of one speaker and their texts: LJSpeech's layout, or one speaker of a corpus in MuST-C's layout.

LJSpeech's layout::

    FOLDER/metadata.csv     NAME|text|normalised text, one line for each recording
    FOLDER/wavs/NAME.wav
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mla_fairseq.data.mustc import MuSTC
from mla_fairseq.files import file_name, read_text, unusable
from mla_fairseq.speech import SAMPLE_RATE, audio_length, open_audio


@dataclass(frozen=True)
class Clip:
    """``length`` samples of ``wav`` from sample ``start``, the file's ``rate`` in Hz, and the text that is spoken."""

    id: str
    wav: Path
    start: int
    length: int
    rate: int
    text: str
    speaker: str

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.length / self.rate


def read_clips(folder: Path, speaker: str | None = None) -> dict[str, list[Clip]]:
    """Return the clips of each split; LJSpeech's layout has a single split, ``all``.

    Raises:
        ValueError: the folder has neither layout, a recording cannot be used, or the speaker is unknown or missing.
    """
    folder = Path(folder)
    if os.path.lexists(folder / "metadata.csv"):
        if speaker is not None:
            raise ValueError(f"--speaker is not supported for LJSpeech's layout ({speaker}): remove it")
        return {"all": _ljspeech(folder)}
    if (folder / "data").is_dir():
        return _mustc(folder, speaker)
    raise ValueError(
        f"{folder} has neither metadata.csv (LJSpeech's layout) nor data/SPLIT (MuST-C's): correct the folder"
    )


def split_clips(clips: list[Clip], dev: int | None, test: int | None, seed: int) -> dict[str, list[Clip]]:
    """Draw a development and a test set of given sizes; ``None``: a twentieth of the clips each, at most 100.

    Raises:
        ValueError: a set without clips.
    """
    part = max(1, min(100, len(clips) // 20))
    dev, test = (part if size is None else size for size in (dev, test))
    if min(dev, test) < 1 or dev + test >= len(clips):
        raise ValueError(
            f"empty set (dev {dev}, test {test}, train {len(clips) - dev - test} of {len(clips)} clips): "
            "correct --dev and --test"
        )
    order = clips.copy()
    random.Random(seed).shuffle(order)
    parts = {"dev": order[:dev], "test": order[dev : dev + test], "train": order[dev + test :]}
    return {name: sorted(parts[name], key=lambda clip: clip.id) for name in ("train", "dev", "test")}


def _ljspeech(folder: Path) -> list[Clip]:
    """Return the clips of LJSpeech's layout, in the order of metadata.csv."""
    listing = folder / "metadata.csv"
    clips = []
    for number, line in enumerate(read_text(listing).splitlines(), start=1):
        name, *texts = line.split("|")
        if not name or not texts or not texts[-1].strip():
            raise ValueError(f"{listing}:{number} is not NAME|text|normalised text ({line!r}): correct the line")
        wav = folder / "wavs" / f"{file_name(name, f'the name in {listing}:{number}')}.wav"
        rate, length = _audio(wav)
        clips.append(Clip(name, wav, 0, length, rate, texts[-1].strip(), "ljspeech"))
    if not clips:
        raise ValueError(f"{listing} lists no recording: copy it again")
    if repeated := [name for name, count in Counter(clip.id for clip in clips).items() if count > 1]:
        raise ValueError(f"{listing} lists {repeated[0]} more than once: remove the other lines")
    return clips


def _mustc(folder: Path, speaker: str | None) -> dict[str, list[Clip]]:
    """Return the transcribed clips of one speaker, by split; splits without clips are left out."""
    corpus = MuSTC(folder)
    segments = {split: corpus.read(split) for split in corpus.splits}
    for wav in sorted({one.wav for members in segments.values() for one in members}):
        audio_length(wav)  # clips are read without resampling
    spoken: Counter[str] = Counter()  # samples of each speaker
    for members in segments.values():
        for segment in members:
            spoken[segment.speaker] += segment.length
    known = ", ".join(
        f"{name or '(none)'} {length / SAMPLE_RATE / 3600:.2f} h" for name, length in spoken.most_common(9)
    )
    if speaker is None and len(spoken) > 1:
        raise ValueError(f"{folder} has several speakers ({known}): choose one with --speaker")
    if speaker is not None and speaker not in spoken:
        raise ValueError(f"{folder} has no speaker {speaker!r}: choose one of {known}")
    found = {
        split: [
            Clip(one.id, one.wav, one.start, one.length, SAMPLE_RATE, one.source, one.speaker)
            for one in members
            if speaker in (None, one.speaker) and one.source
        ]
        for split, members in segments.items()
    }
    if not found.get("train"):
        raise ValueError(f"{folder} has no training clip of the speaker {speaker!r}: choose another --speaker")
    return {split: clips for split, clips in found.items() if clips}


def _audio(path: Path) -> tuple[int, int]:
    """Return sampling rate (Hz) and number of samples.

    Raises:
        ValueError: a file that is missing, unreadable, cut short, empty or not mono.
    """
    if fault := unusable(path):
        raise ValueError(f"{path} {fault}: copy it again, or remove its line from metadata.csv")
    with open_audio(path) as info:
        pass
    if info.channels != 1:
        raise ValueError(f"{path} is not mono ({info.channels} channels): convert it")
    if info.frames == 0:
        raise ValueError(f"{path} is empty (0 samples): copy it again, or remove its line from metadata.csv")
    return info.samplerate, info.frames
