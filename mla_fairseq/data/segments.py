"""Cut segments into wav files, and write the lists that ``simuleval --source --target`` reads."""

from __future__ import annotations

import io
from pathlib import Path

import soundfile
from tqdm import tqdm

from mla_fairseq.data.mustc import Corpus, Segment
from mla_fairseq.files import write_bytes, write_text
from mla_fairseq.speech import SAMPLE_RATE, read_audio


def cut_segments(corpus: Corpus, split: str, output: Path, limit: int | None = None) -> tuple[Path, Path]:
    """Write the first ``limit`` segments of a split, in the manifest's order; return the paths of the two lists.

    The files are OUTPUT/SPLIT/00000_TALK_0.wav and so on; their names sort in the same order. OUTPUT/SPLIT.wav_list
    contains absolute paths, because simuleval resolves relative ones in its working directory. OUTPUT/SPLIT.LANGUAGE
    contains the translations. Both lists are written last.

    Raises:
        ValueError: a corpus that does not follow the layout, a translation that is empty, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"--limit is below 1 ({limit}): remove it to take all segments")
    segments = corpus.read(split)[:limit]
    corpus.check_texts(split, segments, corpus.languages[1])
    folder = (Path(output) / split).resolve()
    paths = [folder / f"{number:05d}_{segment.id}.wav" for number, segment in enumerate(segments)]
    for path, segment in zip(tqdm(paths, desc=split, unit="wav"), segments, strict=True):
        write_bytes(path, _wav(segment))
    sources, targets = Path(output) / f"{split}.wav_list", Path(output) / f"{split}.{corpus.languages[1]}"
    write_text(sources, "".join(f"{path}\n" for path in paths))
    write_text(targets, "".join(f"{segment.target}\n" for segment in segments))
    return sources, targets


def _wav(segment: Segment) -> bytes:
    """Return the segment's samples as a 16-bit wav file."""
    file = io.BytesIO()
    samples = read_audio(segment.wav, segment.start, segment.length)
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()
