"""Cut segments into wav files, or list whole talks, as ``simuleval --source --target`` reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tqdm import tqdm

from mla_fairseq.data.corpus import Corpus, Segment
from mla_fairseq.files import real_path, write_bytes, write_text
from mla_fairseq.speech import SAMPLE_RATE, read_segment, wav_bytes


def cut_segments(corpus: Corpus, split: str, output: Path, limit: int | None = None) -> tuple[Path, Path]:
    """Write the first ``limit`` segments of a split, in the manifest's order; return the paths of the two lists.

    The files are OUTPUT/SPLIT/00000_TALK_0.wav and so on; their names sort in the same order. OUTPUT/SPLIT.wav_list
    contains absolute paths, because simuleval resolves relative ones in its working directory. OUTPUT/SPLIT.LANGUAGE
    contains the translations. Both lists are written last.

    Raises:
        ValueError: a corpus that does not follow the layout, a translation that is empty, or a limit below 1.
    """
    _check_limit(limit)
    segments = corpus.read(split)[:limit]
    corpus.check_texts(split, segments, corpus.languages[1])
    folder = real_path(Path(output) / split)
    paths = [folder / f"{number:05d}_{segment.id}.wav" for number, segment in enumerate(segments)]
    for path, segment in zip(tqdm(paths, desc=split, unit="wav"), segments, strict=True):
        write_bytes(path, wav_bytes(read_segment(segment.wav, segment.start, segment.length)))
    sources, targets = Path(output) / f"{split}.wav_list", Path(output) / f"{split}.{corpus.languages[1]}"
    write_text(sources, "".join(f"{path}\n" for path in paths))
    write_text(targets, "".join(f"{segment.target}\n" for segment in segments))
    return sources, targets


@dataclass(frozen=True)
class Talks:
    """Paths of the lists of whole talks: for ``simuleval`` and, by segment, for ``mla-evaluate --long-form``."""

    sources: Path
    targets: Path
    segments: Path
    references: Path


def list_talks(corpus: Corpus, split: str, output: Path, limit: int | None = None) -> Talks:
    """Write the lists of the first ``limit`` talks of a split; return their paths. No audio is copied.

    OUTPUT/SPLIT.talks.wav_list has the absolute path of each talk, and SPLIT.talks.LANGUAGE its whole translation in
    one line. OUTPUT/SPLIT.segments.yaml has wav, offset and duration (seconds) of each segment, sorted by talk and
    time, and SPLIT.segments.LANGUAGE its translation.

    Raises:
        ValueError: a corpus that does not follow the layout, a translation that is empty, talks of equal names, or a
            limit below 1.
    """
    _check_limit(limit)
    found = {wav: list(group) for wav, group in groupby(corpus.read(split), key=lambda segment: segment.wav)}
    talks = dict(list(found.items())[:limit])
    _check_names(list(talks))
    language, stem = corpus.languages[1], Path(output) / split
    paths = Talks(*(Path(f"{stem}.{end}") for end in ("talks.wav_list", f"talks.{language}")),
                  *(Path(f"{stem}.{end}") for end in ("segments.yaml", f"segments.{language}")))  # fmt: skip
    segments = [segment for talk in talks.values() for segment in talk]
    corpus.check_texts(split, segments, language)
    write_text(paths.segments, "".join(f"- {json.dumps(_entry(one), ensure_ascii=False)}\n" for one in segments))
    write_text(paths.references, "".join(f"{segment.target}\n" for segment in segments))
    write_text(paths.targets, "".join(" ".join(one.target for one in talk) + "\n" for talk in talks.values()))
    write_text(paths.sources, "".join(f"{real_path(wav)}\n" for wav in talks))
    return paths


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"--limit is below 1 ({limit}): remove it to take everything")


def _check_names(wavs: list[Path]) -> None:
    """Check that talks differ in their names without suffix and folder, by which scoring tools know them."""
    stems = [wav.stem for wav in wavs]
    for wav in wavs:
        if stems.count(wav.stem) > 1:
            raise ValueError(f"several talks have the name {wav.stem!r} ({wav}): rename them in the corpus")


def _entry(segment: Segment) -> dict[str, str | float]:
    """Return a segment as scoring tools read it; a line of JSON is YAML, too."""
    start, length = segment.start / SAMPLE_RATE, segment.length / SAMPLE_RATE
    return {"wav": segment.wav.name, "offset": start, "duration": length}
