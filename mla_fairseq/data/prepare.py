"""Prepare a corpus in MuST-C's layout as a data folder for fairseq's speech-to-text task."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mla_fairseq.data import archive, config, manifest
from mla_fairseq.data.extraction import extract, global_cmvn, member_name, staging_folder
from mla_fairseq.data.ledger import Ledger, fingerprint
from mla_fairseq.data.mustc import Corpus, Segment
from mla_fairseq.data.vocabulary import GivenVocabulary, Vocabulary
from mla_fairseq.files import replacing

log = logging.getLogger(__name__)
ARCHIVE = "fbank80.zip"


@dataclass(frozen=True)
class Options:
    """Options of a preparation. Lengths are in frames of 10 ms; they filter the training splits only."""

    task: str = "st"
    vocabulary: Vocabulary | GivenVocabulary = field(default_factory=lambda: Vocabulary("unigram", 8000))
    cmvn: str = "utterance"
    specaugment: str = "sm"
    min_frames: int = 5
    max_frames: int = 3000
    workers: int = 1


class Preparation:
    """Prepare one language pair, file by file; a file is made again only if what it is made from has changed."""

    def __init__(self, corpus: Corpus, output: Path, options: Options) -> None:
        self.corpus, self.output, self.options = corpus, Path(output), options
        self.ledger = Ledger(self.output / ".prepared.json")

    def run(self) -> Path:
        """Make all files; return the configuration's path.

        Raises:
            ValueError: a corpus that does not follow the layout, or no segment is left to train on.
        """
        segments = {split: self.corpus.read(split) for split in self.corpus.splits}
        if "train" not in segments:
            raise ValueError(
                f"{self.corpus.root / 'data'} has no train split: add one, the vocabulary is trained on it"
            )
        kept = {split: self.filter(split, members) for split, members in segments.items()}
        model = self.train_vocabulary([self.text(segment) for segment in kept["train"]])
        self.drop_features_of_other_audio({segment.wav for members in segments.values() for segment in members})
        extract(self.output / ARCHIVE, segments, self.options.workers)  # all segments: the filters may change
        places = archive.members(self.output / ARCHIVE)
        for split, members in kept.items():
            self.write_manifest(split, members, places)
        statistics = self.gather_statistics() if self.options.cmvn == "global" else None
        path = self.output / f"config_{self.options.task}.yaml"
        config.write(path, model, self.options.cmvn, self.options.specaugment, statistics)
        return path

    def make(self, products: list[Path], made_from: str, build: Callable[[], object]) -> None:
        """Run ``build`` unless all its products exist and were made from the same."""
        if all(self.ledger.current(product, made_from) for product in products):
            return
        build()
        for product in products:
            self.ledger.record(product, made_from)

    def drop_features_of_other_audio(self, wavs: set[Path]) -> None:
        """Delete the archive and its statistics if a recording has changed.

        Names in the archive contain the place of the samples but not the content: old features would be reused.
        """
        now = {f"{wav.parent.parent.name}/{wav.name}": audio_fingerprint(wav) for wav in wavs}
        before = self.ledger.entries
        if changed := sorted(name for name in now if before.get(name, now[name]) != now[name]):
            log.warning("%s has changed (and %d others): extract all features again", changed[0], len(changed) - 1)
            for name in (ARCHIVE, "gcmvn.npz"):
                (self.output / name).unlink(missing_ok=True)
            shutil.rmtree(staging_folder(self.output / ARCHIVE), ignore_errors=True)
        if not now.items() <= before.items():
            self.ledger.record_all(now)

    def write_manifest(self, split: str, segments: list[Segment], places: dict[str, tuple[int, int]]) -> None:
        """Write the manifest of one split, whose features are stored at ``places`` in the archive."""
        rows = [self.row(segment, places[member_name(split, segment)]) for segment in segments]
        path = self.manifest_path(split)
        self.make([path], fingerprint(*rows), lambda: manifest.write(path, rows))

    def manifest_path(self, split: str) -> Path:
        """Return the path of a split's manifest."""
        return self.output / f"{split}_{self.options.task}.tsv"

    def filter(self, split: str, segments: list[Segment]) -> list[Segment]:
        """Return the segments to use: of a training split, those with a text and a length within the limits.

        Raises:
            ValueError: no training segment is left, or a segment of another split has no frame.
        """
        if not split.startswith("train"):
            if short := next((segment for segment in segments if segment.num_frames == 0), None):
                raise ValueError(
                    f"{split}: segment {short.id} has no frame ({short.length} samples): make it 25 ms or longer"
                )
            return segments
        low, high = max(1, self.options.min_frames), self.options.max_frames
        kept = [segment for segment in segments if low <= segment.num_frames <= high and self.text(segment)]
        if len(kept) < len(segments):
            log.info("%s: %d of %d segments kept (%d to %d frames)", split, len(kept), len(segments), low, high)
        if not kept:
            raise ValueError(
                f"none of {len(segments)} {split} segments has a text and {low} to {high} frames: "
                "correct the texts, --min-frames or --max-frames"
            )
        return kept

    def text(self, segment: Segment) -> str:
        """Return the target text: the translation, or the transcript for ASR."""
        return segment.target if self.options.task == "st" else segment.source

    def row(self, segment: Segment, place: tuple[int, int]) -> manifest.Row:
        """Return the manifest's row of a segment whose features are stored at ``place`` in the archive."""
        source, target = self.corpus.languages
        return manifest.Row(
            id=segment.id,
            audio=f"{ARCHIVE}:{place[0]}:{place[1]}",
            n_frames=segment.num_frames,
            tgt_text=self.text(segment),
            speaker=segment.speaker,
            src_text=segment.source,
            src_lang=source,
            tgt_lang=target if self.options.task == "st" else source,
        )

    def train_vocabulary(self, lines: list[str]) -> Path:
        """Train SentencePiece on the training texts, or copy the given model; return the model's path."""
        model = self.output / f"{self.options.vocabulary.prefix(self.options.task)}.model"
        made_from = fingerprint(self.options.vocabulary, *lines)
        products = [model, model.with_suffix(".txt")]
        self.make(products, made_from, lambda: self.options.vocabulary.train(lines, model))
        return model

    def gather_statistics(self) -> Path:
        """Write mean and standard deviation over the utterances of the training manifest; return the npz's path."""
        path = self.output / "gcmvn.npz"
        places = sorted(manifest.places(self.manifest_path("train"))[ARCHIVE])

        def build() -> None:
            with replacing(path) as part:
                global_cmvn(self.output / ARCHIVE, places, self.options.workers).save(part)

        self.make([path], fingerprint(*places), build)
        return path


def audio_fingerprint(wav: Path) -> str:
    """Return a digest that changes when the file is modified."""
    stat = wav.stat()
    return fingerprint(stat.st_size, stat.st_mtime_ns)


def prepare(pair: Path, output: Path | None, options: Options) -> Path:
    """Prepare the corpus at ``pair`` in ``output`` (``None``: the pair's folder); return the configuration's path.

    Raises:
        ValueError: a corpus that does not follow the layout, or options that do not fit it.
    """
    return Preparation(Corpus(pair), Path(output or pair), options).run()
