"""Prepare the recordings of one speaker as a data folder for fairseq's text-to-speech task."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import soxr
import yaml

from mla_fairseq.data import archive, manifest
from mla_fairseq.data.extraction import fill, global_cmvn
from mla_fairseq.data.ledger import Ledger, fingerprint
from mla_fairseq.data.ljspeech import Clip, read_clips, split_clips
from mla_fairseq.data.spoken_text import SpokenText
from mla_fairseq.files import make_folder, read_text, replacing, write_text
from mla_fairseq.speech import open_audio
from mla_fairseq.speech.mel import MelSpectrogram

log = logging.getLogger(__name__)
ARCHIVE, DICTIONARY, STATISTICS, CONFIG = "mel80.zip", "dict.txt", "gcmvn.npz", "config.yaml"


@dataclass(frozen=True)
class Options:
    """Options of a preparation.

    Attributes:
        text: how texts become symbols.
        mel: how samples become frames.
        speaker: the speaker to take, of a corpus with several.
        trim: silence to cut off, in decibels below the loudest frame; 0 keeps all.
        dev, test: clips to draw for each set; ``None``: a twentieth, at most 100.
        seed: of the draw.
        min_seconds, max_seconds: limits of the training clips.
        durations: id -> frames of each symbol.
        workers: processes.

    Raises:
        ValueError: ``trim`` below 0.
    """

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
        if not self.trim >= 0:
            raise ValueError(f"--trim is not 0 decibels or more ({self.trim}): use 0 to keep silence")


def read_durations(path: Path) -> dict[str, list[int]]:
    """Read the frames of each symbol: ``NAME|3 12 5``, one line for each recording.

    Raises:
        ValueError: a line of another form, or a name on two lines.
    """
    found: dict[str, list[int]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, bar, values = line.partition("|")
        if not bar or not all(value.isascii() and value.isdecimal() for value in values.split()):
            raise ValueError(f"{path}:{number} is not NAME|3 12 5 ({line!r}): give the frames of each symbol")
        if name in found:
            raise ValueError(f"{path}:{number} repeats {name}: remove one of the lines")
        found[name] = [int(value) for value in values.split()]
    return found


def prepare(folder: Path, output: Path, options: Options) -> Path:
    """Prepare the corpus at ``folder`` in ``output``; return the configuration's path.

    Raises:
        ValueError: a corpus that does not follow a layout, or options that do not fit it.
    """
    if options.durations is not None and options.trim:
        raise ValueError(f"--durations count untrimmed frames (--trim is {options.trim:g}): add --trim 0")
    splits, symbols = _read(folder, options)
    ledger = Ledger(make_folder(output) / ".prepared.json")
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
        with replacing(output / STATISTICS) as part:
            global_cmvn(output / ARCHIVE, train, options.workers).save(part)
        ledger.record(output / STATISTICS, made_from)
    _write_config(output / CONFIG, options)
    return output / CONFIG


def _read(folder: Path, options: Options) -> tuple[dict[str, list[Clip]], dict[str, list[list[str]]]]:
    """Return the clips of each split, and the symbols of each clip."""
    splits = read_clips(folder, options.speaker)
    if list(splits) == ["all"]:
        splits = split_clips(splits["all"], options.dev, options.test, options.seed)
    elif (options.dev, options.test) != (None, None):
        raise ValueError(f"{folder} already has splits ({', '.join(splits)}): remove --dev and --test")
    splits = {split: _keep(split, clips, options) for split, clips in splits.items()}
    if dropped := options.text.dropped(clip.text for clips in splits.values() for clip in clips):
        counts = ", ".join(f"{sign} {count} times" for sign, count in dropped.most_common())
        log.info("characters dropped from the texts: %s", counts)
    symbols = {split: options.text.symbols(clip.text for clip in clips) for split, clips in splits.items()}
    for split, lines in symbols.items():
        if empty := next((clip for clip, line in zip(splits[split], lines, strict=True) if not line), None):
            raise ValueError(f"{split}: the text of {empty.id} has no symbol ({empty.text!r}): correct or remove it")
    return splits, symbols


def _keep(split: str, clips: list[Clip], options: Options) -> list[Clip]:
    """Return the clips to use: of a training split, those within the limits of length."""
    if not split.startswith("train"):
        return clips
    low, high = options.min_seconds, options.max_seconds
    kept = [clip for clip in clips if low <= clip.seconds <= high]
    if len(kept) < len(clips):
        log.info("%s: %d of %d clips kept (%g to %g seconds)", split, len(kept), len(clips), low, high)
    if not kept:
        raise ValueError(
            f"none of {len(clips)} training clips has {low} to {high} s: correct --min-seconds or --max-seconds"
        )
    return kept


def _extract(path: Path, splits: dict[str, list[Clip]], options: Options) -> dict[Clip, str]:
    """Store all spectrograms in the archive; return their names, which depend on the audio file and the settings."""
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
    """Return a clip's samples (time,) float32, resampled to ``rate`` Hz.

    Raises:
        ValueError: the file cannot be read, ends before the clip does, or has samples that are not finite.
    """
    with open_audio(clip.wav) as file:
        file.seek(clip.start)
        samples = file.read(clip.length, dtype="float32")
    if len(samples) != clip.length:
        raise ValueError(f"{clip.wav} is cut short ({clip.start + len(samples)} samples): copy it again")
    if not np.isfinite(samples).all():
        second = (clip.start + np.flatnonzero(~np.isfinite(samples))[0]) / clip.rate
        raise ValueError(f"{clip.wav} is not finite at {second:.2f} s: repair the recording, or remove it")
    return samples if clip.rate == rate else soxr.resample(samples, clip.rate, rate)


def spectrogram(clip: Clip, mel: MelSpectrogram, trim: float) -> np.ndarray:
    """Return the log-mel frames (T, n_mels) of a clip, without the silence around it.

    Raises:
        ValueError: the clip contains only silence.
    """
    samples = read_samples(clip, mel.sample_rate)
    if not np.abs(samples).max() > 0:
        raise ValueError(f"{clip.wav} contains only silence ({len(samples)} samples): record it again, or remove it")
    return mel(mel.trim(samples, trim) if trim else samples)


def _frames(size: int) -> int:
    """Return the number of frames of a spectrogram that takes ``size`` bytes in the archive."""
    # numpy's header has 128 bytes; then float32
    return (size - 128) // (4 * MelSpectrogram().n_mels)


def _row(clip: Clip, symbols: list[str], place: tuple[int, int], frames: int, options: Options) -> manifest.Row:
    """Return the manifest's row of a clip whose spectrogram is stored at ``place``, with durations if there are any."""
    row = manifest.Row(
        id=clip.id,
        audio=f"{ARCHIVE}:{place[0]}:{place[1]}",
        n_frames=frames,
        tgt_text=" ".join(symbols),
        speaker=clip.speaker,
        src_text=" ".join(clip.text.split()),
        src_lang=options.text.language,
        tgt_lang=options.text.language,
    )
    if options.durations is None:
        return row
    durations = _durations(clip, symbols, frames, options.durations)
    return manifest.TimedRow(**vars(row), duration=" ".join(map(str, durations)))


def _durations(clip: Clip, symbols: list[str], frames: int, durations: dict[str, list[int]]) -> list[int]:
    """Return the frames of each symbol of a clip.

    Raises:
        ValueError: no durations for the clip, or durations that do not fit its symbols or its frames.
    """
    values = durations.get(clip.id)
    if values is None:
        raise ValueError(f"--durations has no line for {clip.id}: add it, or remove the recording")
    if len(values) != len(symbols):
        raise ValueError(
            f"--durations has {len(values)} numbers for the {len(symbols)} symbols of {clip.id} "
            f"({' '.join(symbols)}): give one for each symbol"
        )
    if abs(sum(values) - frames) > manifest.ROUNDING:
        raise ValueError(
            f"--durations of {clip.id} do not add up to its {frames} frames ({sum(values)}): correct the line"
        )
    return values


def _write_dictionary(path: Path, symbols: dict[str, list[list[str]]]) -> None:
    """Write the symbols of the training set, most frequent first; warn about symbols of other sets only."""
    counts = Counter(symbol for line in symbols["train"] for symbol in line)
    for split, lines in symbols.items():
        unknown = Counter(symbol for line in lines for symbol in line if symbol not in counts)
        if unknown:
            log.warning("%s: %d symbols are not in the training set: %s", split, unknown.total(), "".join(unknown))
    order = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    write_text(path, "".join(f"{symbol} {count}\n" for symbol, count in order))


def _write_config(path: Path, options: Options) -> None:
    """Write the data configuration, with paths relative to its folder."""
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
