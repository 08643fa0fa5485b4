"""Make a synthetic speech corpus in MuST-C's layout: sentences of the phrase grammar, spoken by espeak-ng.

    OUT/en-de/data/{train,dev,tst-COMMON}/{wav/demo_SPLIT_NNNN.wav, txt/SPLIT.{yaml,en,de}}
    OUT/en-de/made_from.json        the options; a second run with the same options does nothing

As in MuST-C, a wav is a talk: 20 to 40 sentences of one voice with pauses; a list has their offsets and durations.
No sentence of dev and tst-COMMON occurs in train, on either side; both sets are the same for every size of train.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import soxr
from tqdm import tqdm

from examples.demo_corpus import espeak
from examples.demo_corpus.espeak import Voice
from examples.demo_corpus.grammar import Pair, sentences
from mla_fairseq.data.extraction import num_workers
from mla_fairseq.data.ledger import fingerprint
from mla_fairseq.files import write_bytes, write_text
from mla_fairseq.speech import SAMPLE_RATE, wav_bytes

log = logging.getLogger(__name__)

# Three accents, each by a man and a woman: accents differ in their vowels and r, variants in timbre and formants.
VOICES = (
    Voice("gmw/en-US", pitch=45, rate=280),
    Voice("gmw/en-US+f2", pitch=55, rate=290),
    Voice("gmw/en+m3", pitch=35, rate=280),
    Voice("gmw/en+f4", pitch=60, rate=290),
    Voice("gmw/en-GB-scotland", pitch=40, rate=270),
    Voice("gmw/en-GB-scotland+f3", pitch=65, rate=280),
)
TEMPO = 0.08  # each sentence is up to this much slower or faster than its voice
SENTENCES_PER_TALK = (20, 40)
PAUSE = (0.2, 0.5)  # seconds between sentences
MARGIN = 0.05  # seconds of pause at either end that belong to the segment
GAIN = 0.6  # espeak-ng uses the full range, and resampling overshoots it
NOISE = 8.0  # root mean square of 16-bit samples: digital silence would make the features' logarithms jump


@dataclass(frozen=True)
class Talk:
    """Sentences that one voice speaks into one file. The seed sets tempo, pauses and noise."""

    name: str
    speaker: int  # place in VOICES
    seed: str
    sentences: tuple[Pair, ...]
    rate: int | None = None  # words per minute; None: the rate of the voice


def talks(split: str, pairs: list[Pair], seed: int, speakers: Sequence[int], rate: int | None = None) -> Iterator[Talk]:
    """Yield the talks of a split; the voices take turns, so that each split has them all."""
    random, start, number = Random(f"{seed} {split}"), 0, 0
    while start < len(pairs):
        stop = start + random.randint(*SENTENCES_PER_TALK)
        name = f"demo_{split}_{number:04d}"
        speaker = speakers[number % len(speakers)]
        yield Talk(name, speaker, f"{seed} {name}", tuple(pairs[start:stop]), rate)
        start, number = stop, number + 1


def pause(random: Random) -> np.ndarray:
    """Return silence of a random length, (time,) float32."""
    return np.zeros(round(random.uniform(*PAUSE) * SAMPLE_RATE), np.float32)


def speak(talk: Talk) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return a talk's samples, (time,) int16 at 16 kHz, and (offset, duration) of each sentence in samples."""
    engine, random, margin = espeak.engine(), Random(talk.seed), round(MARGIN * SAMPLE_RATE)
    voice = VOICES[talk.speaker]
    parts, places, position = [], [], 0
    for sentence in talk.sentences:
        tempo = random.uniform(1 - TEMPO, 1 + TEMPO)
        raw = engine.say(sentence.en, replace(voice, rate=round((talk.rate or voice.rate) * tempo)))
        spoken, silence = soxr.resample(raw.astype(np.float32), engine.sample_rate, SAMPLE_RATE), pause(random)
        places.append((position + len(silence) - margin, len(spoken) + 2 * margin))
        parts += [silence, GAIN * spoken]
        position += len(silence) + len(spoken)
    samples = np.concatenate([*parts, pause(random)])
    samples += NOISE * np.random.default_rng(random.getrandbits(64)).standard_normal(len(samples), np.float32)
    return samples.round().astype(np.int16), places


def record(folder: Path, talk: Talk) -> tuple[Talk, list[tuple[int, int]]]:
    """Speak a talk into its file, completely or not at all."""
    samples, places = speak(talk)
    write_bytes(folder / f"{talk.name}.wav", wav_bytes(samples))
    return talk, places


def record_all(folder: Path, planned: list[Talk], workers: int) -> list[tuple[Talk, list[tuple[int, int]]]]:
    """Record talks in several processes, a new one for each talk: see ``espeak`` for the reason."""
    # a forked process starts at once; all have the same state because their parent has not spoken
    assert not espeak.engine.cache_info().currsize
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    done = []
    bar = tqdm(total=sum(len(talk.sentences) for talk in planned), desc=folder.parent.name, unit="sentence")
    with bar, multiprocessing.get_context(method).Pool(workers, maxtasksperchild=1) as pool:
        for talk, places in pool.imap_unordered(partial(record, folder), planned):
            done.append((talk, places))
            bar.update(len(places))
    return sorted(done, key=lambda item: item[0].name)


def segment_line(talk: Talk, offset: int, duration: int) -> str:
    """Return one entry of the segment list, in seconds."""
    seconds = f"duration: {duration / SAMPLE_RATE:.6f}, offset: {offset / SAMPLE_RATE:.6f}"
    return f"- {{{seconds}, speaker_id: spk.{talk.speaker + 1}, wav: {talk.name}.wav}}\n"


def make_split(folder: Path, planned: list[Talk], workers: int) -> None:
    """Record a split and write its lists; the yaml is written last, so that it marks a complete split."""
    split = folder.name
    listing = folder / "txt" / f"{split}.yaml"
    if listing.exists() and all((folder / "wav" / f"{talk.name}.wav").exists() for talk in planned):
        log.info("%s: complete", folder)
        return
    recorded = record_all(folder / "wav", planned, workers)
    for language in Pair._fields:
        lines = (f"{getattr(pair, language)}\n" for talk, _ in recorded for pair in talk.sentences)
        write_text(folder / "txt" / f"{split}.{language}", "".join(lines))
    write_text(listing, "".join(segment_line(talk, *place) for talk, places in recorded for place in places))
    seconds = sum(duration for _, places in recorded for _, duration in places) / SAMPLE_RATE
    count = sum(len(places) for _, places in recorded)
    log.info("%s: %d sentences, %.1f minutes of speech, %d talks", folder, count, seconds / 60, len(recorded))


def claim(root: Path, made_from: dict[str, object]) -> None:
    """Record the options of the corpus in its folder.

    Raises:
        ValueError: the folder contains something else.
    """
    path = root / "made_from.json"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in made_from if found.get(key) != made_from[key]]
        if differing:
            key = differing[0]
            raise ValueError(
                f"{root} was made with another {key} ({found.get(key)}, not {made_from[key]}): "
                "choose another folder, or delete this one"
            )
    elif root.exists() and any(root.iterdir()):
        raise ValueError(f"{root} contains files that this program did not write: choose another folder")
    else:
        write_text(path, json.dumps(made_from, indent=1) + "\n")


def make_corpus(
    out: Path,
    train: int = 6000,
    dev: int = 300,
    test: int = 300,
    *,
    patterns: str = "all",
    voices: int = len(VOICES),
    voice: int | None = None,
    rate: int | None = None,
    seed: int = 1,
    workers: int | None = None,
) -> Path:
    """Make the corpus OUT/en-de, or complete that of a stopped run; return its folder.

    Args:
        out: folder to write the language pair to.
        train, dev, test: sentences in train, dev and tst-COMMON.
        patterns: as for ``grammar.choose``.
        voices: number of ``VOICES`` that speak.
        voice: number of the only voice that speaks, from 1.
        rate: words per minute; ``None``: the rate of each voice.
        seed: random seed of sentences, pauses and noise.
        workers: number of processes; ``None``: one per core.

    Raises:
        ValueError: an option is out of range, the folder contains another corpus, or espeakng-loader is missing.
            Nothing is written.
    """
    counts = {"train": train, "dev": dev, "tst-COMMON": test}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"too few sentences in {name} ({count}): ask for at least 1")
    if not 1 <= voices <= len(VOICES):
        raise ValueError(f"unknown number of voices ({voices}): choose 1 to {len(VOICES)}")
    if voice is not None and not 1 <= voice <= len(VOICES):
        raise ValueError(f"unknown voice ({voice}): choose 1 to {len(VOICES)}")
    slowest, fastest = math.ceil(80 / (1 - TEMPO)), int(450 / (1 + TEMPO))  # each sentence varies by TEMPO
    if rate is not None and not slowest <= rate <= fastest:
        raise ValueError(f"rate out of range ({rate}): choose {slowest} to {fastest} words per minute")
    speakers = range(voices) if voice is None else [voice - 1]
    workers = num_workers() if workers is None else workers
    if workers < 1:
        raise ValueError(f"too few processes ({workers}): use at least 1")
    espeak.locate()
    pairs = sentences(test + dev + train, seed, patterns)
    held_out, seen = pairs[: test + dev], pairs[test + dev :]
    content = {"tst-COMMON": held_out[:test], "dev": held_out[test:], "train": seen}
    options = {**counts, "patterns": patterns, "voices": voices, "voice": voice, "rate": rate, "seed": seed}
    root = Path(out) / "en-de"
    recipe = (VOICES, TEMPO, SENTENCES_PER_TALK, PAUSE, MARGIN, GAIN, NOISE)
    claim(root, {**options, "content": fingerprint(pairs, recipe)})
    for split in counts:
        planned = list(talks(split, content[split], seed, speakers, rate))
        make_split(root / "data" / split, planned, workers)
    return root
