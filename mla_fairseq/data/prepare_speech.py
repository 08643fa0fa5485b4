"""From one voice's recordings to a folder that fairseq's text-to-speech task trains on."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
import yaml

from mla_fairseq.data import archive, manifest
from mla_fairseq.data.extraction import fill, global_cmvn
from mla_fairseq.data.ledger import Ledger, fingerprint
from mla_fairseq.data.ljspeech import Clip, read_clips, split_clips
from mla_fairseq.data.spoken_text import SpokenText
from mla_fairseq.files import read_text, write_text
from mla_fairseq.speech.mel import MelSpectrogram

log = logging.getLogger(__name__)
ARCHIVE, DICTIONARY, STATISTICS, CONFIG = "mel80.zip", "dict.txt", "gcmvn.npz", "config.yaml"
ROUNDING = 2  # frames that durations may be off by in sum: aligners cut at other places than spectrograms


@dataclass(frozen=True)
class Options:
    """What to prepare. Seconds filter the training split only; ``trim`` is in decibels below the loudest, 0: nothing
    is cut off; ``durations`` maps ids to the frames of each symbol."""

    text: SpokenText = field(default_factory=SpokenText)
    mel: MelSpectrogram = field(default_factory=MelSpectrogram)
    speaker: str | None = None
    trim: float = 40.0
    dev: int | None = None
    test: int | None = None
    seed: int = 1
    min_seconds: float = 0.3
    max_seconds: float = 20.0
    durations: dict[str, list[int]] | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        """Raises ValueError for settings that leave nothing."""
        if not self.trim >= 0:
            raise ValueError(f"--trim must be at least 0 decibels, but is {self.trim}")


def read_durations(path: Path) -> dict[str, list[int]]:
    """``NAME|3 12 5``, one line for each recording: the frames of each symbol.

    Raises:
        ValueError: a line that is no such one.
    """
    found: dict[str, list[int]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, bar, values = line.partition("|")
        if not bar or not all(value.isascii() and value.isdecimal() for value in values.split()):
            raise ValueError(f"{path}:{number} is {line!r}, but NAME|3 12 5 is needed, the frames of each symbol")
        if name in found:
            raise ValueError(f"{path}:{number} has {name} for the second time: take one of the lines out")
        found[name] = [int(value) for value in values.split()]
    return found


def prepare(folder: Path, output: Path, options: Options) -> Path:
    """Prepare the corpus at ``folder`` into ``output``; returns the configuration's path.

    Raises:
        ValueError: whatever the corpus does not fit, with its mend.
    """
    if options.durations is not None and options.trim:
        raise ValueError("durations are of whole recordings: give --trim 0 with them")
    splits, symbols = _read(folder, options)
    output.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(output / ".prepared.json")
    names = _extract(output / ARCHIVE, splits, options)
    places = archive.members(output / ARCHIVE)
    for split, clips in splits.items():
        rows = [
            _row(clip, line, places[names[clip]], _frames(places[names[clip]][1]), options)
            for clip, line in zip(clips, symbols[split], strict=True)
        ]
        manifest.write(output / f"{split}.tsv", rows)
        log.info("%s: %d clips, %.2f hours", split, len(clips), sum(clip.seconds for clip in clips) / 3600)
    _write_dictionary(output / DICTIONARY, symbols)
    train = sorted(places[names[clip]] for clip in splits["train"])
    made_from = fingerprint(*train)
    if not ledger.current(output / STATISTICS, made_from):
        global_cmvn(output / ARCHIVE, train, options.workers).save(output / STATISTICS)
        ledger.record(output / STATISTICS, made_from)
    _write_config(output / CONFIG, options)
    return output / CONFIG


def _read(folder: Path, options: Options) -> tuple[dict[str, list[Clip]], dict[str, list[list[str]]]]:
    """The clips of each split, and their symbols."""
    splits = read_clips(folder, options.speaker)
    if list(splits) == ["all"]:
        splits = split_clips(splits["all"], options.dev, options.test, options.seed)
    elif (options.dev, options.test) != (None, None):
        raise ValueError(f"{folder} has splits of its own, {', '.join(splits)}: leave --dev and --test out")
    splits = {split: _keep(split, clips, options) for split, clips in splits.items()}
    if unheard := options.text.unheard(clip.text for clips in splits.values() for clip in clips):
        log.info(
            "left out of the texts: %s", ", ".join(f"{sign} {count} times" for sign, count in unheard.most_common())
        )
    symbols = {split: options.text.symbols(clip.text for clip in clips) for split, clips in splits.items()}
    for split, lines in symbols.items():
        if none := next((clip for clip, line in zip(splits[split], lines, strict=True) if not line), None):
            raise ValueError(f"{split}: {none.id} says {none.text!r}, of which no symbol is left: take it out")
    return splits, symbols


def _keep(split: str, clips: list[Clip], options: Options) -> list[Clip]:
    if not split.startswith("train"):
        return clips
    low, high = options.min_seconds, options.max_seconds
    kept = [clip for clip in clips if low <= clip.seconds <= high]
    if len(kept) < len(clips):
        log.info("%s: %d of %d clips kept (%g to %g seconds)", split, len(kept), len(clips), low, high)
    if not kept:
        raise ValueError(
            f"none of {len(clips)} training clips has {low} to {high} s: check --min-seconds, --max-seconds"
        )
    return kept


def _extract(path: Path, splits: dict[str, list[Clip]], options: Options) -> dict[Clip, str]:
    """Bring all spectrograms into the archive; returns their names there, which tell what they were made from."""
    made_from = fingerprint(options.mel, options.trim)[:8]
    names = {}
    for clip in (clip for clips in splits.values() for clip in clips):
        stat = clip.wav.stat()
        written = fingerprint(stat.st_size, stat.st_mtime_ns)[:8]
        names[clip] = f"{clip.id}_{clip.start}_{clip.length}_{written}_{made_from}.npy"
    jobs = {name: (clip, options.mel, options.trim) for clip, name in names.items()}
    fill(path, jobs, spectrogram, options.workers)
    return names


def read_samples(clip: Clip, rate: int) -> np.ndarray:
    """A clip's samples (time,) float32 at ``rate`` samples per second.

    Raises:
        ValueError: the file ends before the clip does.
    """
    samples, _ = soundfile.read(str(clip.wav), start=clip.start, frames=clip.length, dtype="float32")
    if len(samples) != clip.length:
        raise ValueError(f"{clip.wav} ends after {clip.start + len(samples)} samples: copy it again")
    return samples if clip.rate == rate else soxr.resample(samples, clip.rate, rate)


def spectrogram(clip: Clip, mel: MelSpectrogram, trim: float) -> np.ndarray:
    """Log-mel frames (T, n_mels) of a clip, without silence around it.

    Raises:
        ValueError: silence alone.
    """
    samples = read_samples(clip, mel.sample_rate)
    if not np.abs(samples).max() > 0:
        raise ValueError(f"{clip.wav} is silent: record it again, or take it out")
    return mel(mel.trim(samples, trim) if trim else samples)


def _frames(size: int) -> int:
    """Frames in an array that takes so many bytes in the archive: float32, after numpy's header of 128 bytes."""
    return (size - 128) // (4 * MelSpectrogram().n_mels)


def _row(clip: Clip, symbols: list[str], place: tuple[int, int], frames: int, options: Options) -> manifest.Row:
    values = {
        "id": clip.id,
        "audio": f"{ARCHIVE}:{place[0]}:{place[1]}",
        "n_frames": frames,
        "tgt_text": " ".join(symbols),
        "speaker": clip.speaker,
        "src_text": " ".join(clip.text.split()),
        "src_lang": options.text.language,
        "tgt_lang": options.text.language,
    }
    if options.durations is None:
        return manifest.Row(**values)
    return manifest.TimedRow(
        **values, duration=" ".join(map(str, _durations(clip, symbols, frames, options.durations)))
    )


def _durations(clip: Clip, symbols: list[str], frames: int, durations: dict[str, list[int]]) -> list[int]:
    own = durations.get(clip.id)
    if own is None:
        raise ValueError(f"--durations has no line for {clip.id}: add it, or take the recording out")
    if len(own) != len(symbols):
        raise ValueError(
            f"--durations has {len(own)} numbers for {clip.id}, which has {len(symbols)} symbols: {symbols}"
        )
    if abs(sum(own) - frames) > ROUNDING:
        raise ValueError(f"--durations of {clip.id} are {sum(own)} frames in sum, but it has {frames}")
    return own


def _write_dictionary(path: Path, symbols: dict[str, list[list[str]]]) -> None:
    """The training set's symbols, and a warning for those that it has not."""
    counts = Counter(symbol for line in symbols["train"] for symbol in line)
    for split, lines in symbols.items():
        strange = Counter(symbol for line in lines for symbol in line if symbol not in counts)
        if strange:
            log.warning("%s: %d symbols are not in the training set: %s", split, strange.total(), "".join(strange))
    order = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    write_text(path, "".join(f"{symbol} {count}\n" for symbol, count in order))


def _write_config(path: Path, options: Options) -> None:
    settings = {
        "audio_root": "",
        "vocab_filename": DICTIONARY,
        "features": {"type": "spectrogram+melscale+log", **asdict(options.mel)},
        "feature_transforms": {"*": ["global_cmvn"]},
        "global_cmvn": {"stats_npz_path": STATISTICS},
        "spoken_text": options.text.settings(),
        "vocoder": {"type": "griffin_lim"},
    }
    write_text(path, yaml.safe_dump(settings, sort_keys=True))
