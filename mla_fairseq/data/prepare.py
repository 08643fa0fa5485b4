"""Prepare a corpus as a data folder for fairseq's speech-to-text task."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mla_fairseq.data import archive, config, ctc_vocabulary, manifest
from mla_fairseq.data.corpus import Corpus, Segment
from mla_fairseq.data.extraction import GlobalCMVN, extract, global_cmvn, member_name, staging_folder
from mla_fairseq.data.layouts import open_corpus
from mla_fairseq.data.ledger import Ledger, fingerprint
from mla_fairseq.data.vocabulary import GivenVocabulary, Vocabulary
from mla_fairseq.files import replacing

log = logging.getLogger(__name__)
ARCHIVE = "fbank80.zip"


@dataclass(frozen=True)
class Options:
    """Options of a preparation.

    Attributes:
        min_frames, max_frames: limits of the training splits, in frames of 10 ms.
        speeds: the training splits are repeated at each of these speeds.
        layout: the corpus's layout; ``None``: the one whose files exist.
        target_column: column of plain manifests to train on in place of ``tgt_text``.

    Raises:
        ValueError: speeds that repeat or are not between 0.5 and 2.
    """

    task: str = "st"
    vocabulary: Vocabulary | GivenVocabulary = field(default_factory=lambda: Vocabulary("unigram", 8000))
    cmvn: str = "utterance"
    specaugment: str = "sm"
    min_frames: int = 5
    max_frames: int = 3000
    speeds: tuple[float, ...] = (1.0,)
    layout: str | None = None
    target_column: str | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        shown = ",".join(f"{speed:g}" for speed in self.speeds)
        if not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds):
            raise ValueError(f"--speed-perturb is not a list of speeds from 0.5 to 2 ({shown}): use 0.9,1.0,1.1")
        if len(set(self.speeds)) < len(self.speeds):
            raise ValueError(f"--speed-perturb repeats a speed ({shown}): give each once")


class Folder:
    """A prepared folder, made file by file; a file is made again only if what it is made from has changed."""

    def __init__(self, output: Path, options: Options) -> None:
        self.output, self.options = Path(output), options
        self.ledger = Ledger(self.output / ".prepared.json")
        self.statistics = self.output / "gcmvn.npz"

    def make(self, products: list[Path], made_from: str, build: Callable[[], object]) -> None:
        """Run ``build`` unless all its products exist and were made from the same."""
        if all(self.ledger.current(product, made_from) for product in products):
            return
        build()
        for product in products:
            self.ledger.record(product, made_from)

    def write_manifest(self, name: str, rows: list[manifest.Row]) -> Path:
        """Write the manifest of one set; return its path."""
        path = self.output / f"{name}_{self.options.task}.tsv"
        self.make([path], fingerprint(*rows), lambda: manifest.write(path, rows))
        return path

    def train_vocabulary(self, lines: list[str], tags: Sequence[str] = ()) -> Path:
        """Train SentencePiece on the training texts, or copy the given model; return the model's path.

        Each of the ``tags`` becomes a piece.
        """
        model = self.output / f"{self.options.vocabulary.prefix(self.options.task)}.model"
        made_from = fingerprint(self.options.vocabulary, *tags, *lines)
        products = [model, model.with_suffix(".txt")]
        self.make(products, made_from, lambda: self.options.vocabulary.train(lines, model, tags))
        return model

    def write_ctc_vocabulary(self, transcripts: list[str]) -> Path | None:
        """Write the characters of the training transcripts; return the path, ``None`` if they have none."""
        path = self.output / f"ctc_vocab_{self.options.task}.txt"
        if found := ctc_vocabulary.characters(transcripts):
            self.make([path], fingerprint(*found), lambda: ctc_vocabulary.write(path, found))
        return path if found else None

    def write_config(
        self, model: Path, manifests: list[Path], tags: bool = False, ctc_vocabulary: Path | None = None
    ) -> Path:
        """Write the configuration, and the statistics of the training manifests if they are used; return its path."""
        path = self.output / f"config_{self.options.task}.yaml"
        statistics = self.gather_statistics(manifests) if self.options.cmvn == "global" else None
        config.write(path, model, self.options.cmvn, self.options.specaugment, statistics, tags, ctc_vocabulary)
        return path

    def gather_statistics(self, manifests: list[Path]) -> Path:
        """Write mean and standard deviation over the utterances of the manifests; return the npz's path."""
        places = [(name, sorted(found)) for one in manifests for name, found in manifest.places(one).items()]

        def build() -> None:
            total = GlobalCMVN()
            for name, found in places:
                total.merge(global_cmvn(self.output / name, found, self.options.workers))
            with replacing(self.statistics) as part:
                total.save(part)

        # one archive is recorded as before there were several
        self.make([self.statistics], fingerprint(*(places[0][1] if len(places) == 1 else places)), build)
        return self.statistics


class Preparation(Folder):
    """The preparation of one language pair."""

    def __init__(self, corpus: Corpus, output: Path, options: Options) -> None:
        super().__init__(output, options)
        self.corpus = corpus

    def run(self) -> Path:
        """Make all files; return the configuration's path.

        Raises:
            ValueError: a corpus that does not follow the layout, or no segment is left to train on.
        """
        segments, kept = self.read()
        model = self.train_vocabulary(self.texts(kept["train"]))
        characters = self.write_ctc_vocabulary([segment.source for segment in kept["train"]])
        rows = self.extract(segments, kept)
        paths = {split: self.write_manifest(split, members) for split, members in rows.items()}
        return self.write_config(model, [paths["train"]], ctc_vocabulary=characters)

    def read(self) -> tuple[dict[str, list[Segment]], dict[str, list[Segment]]]:
        """Return the segments of each split: all of them, and those to use.

        Raises:
            ValueError: a corpus that does not follow the layout, or no segment is left to train on.
        """
        if "train" not in self.corpus.splits:
            raise ValueError(f"{self.corpus.root} has no train split: add one, the vocabulary is trained on it")
        segments = {split: self.perturb(split, self.corpus.read(split)) for split in self.corpus.splits}
        return segments, {split: self.filter(split, members) for split, members in segments.items()}

    def perturb(self, split: str, segments: list[Segment]) -> list[Segment]:
        """Return the segments of a training split at each speed, those of another split as they are."""
        speeds = self.options.speeds if split.startswith("train") else (1.0,)
        return [
            replace(one, speed=speed, id=one.id if speed == 1 else f"{one.id}_sp{speed:g}")
            for speed in speeds
            for one in segments
        ]

    def texts(self, segments: list[Segment]) -> list[str]:
        """Return the target texts of training segments, each once if they are repeated at several speeds."""
        return [self.text(one) for one in segments if one.speed == self.options.speeds[0]]

    def extract(
        self, segments: dict[str, list[Segment]], kept: dict[str, list[Segment]]
    ) -> dict[str, list[manifest.Row]]:
        """Store the features of all segments in the archive, because the filters may change; return the kept rows."""
        self.drop_features_of_other_audio({segment.wav for members in segments.values() for segment in members})
        extract(self.output / ARCHIVE, segments, self.options.workers)
        places = archive.members(self.output / ARCHIVE)
        return {
            split: [self.row(segment, places[member_name(split, segment)]) for segment in members]
            for split, members in kept.items()
        }

    def drop_features_of_other_audio(self, wavs: set[Path]) -> None:
        """Delete the archive and its statistics if a recording has changed.

        Names in the archive contain the place of the samples but not the content: old features would be reused.
        """
        now = {os.path.relpath(wav, self.corpus.root): audio_fingerprint(wav) for wav in wavs}
        before = self.ledger.entries
        if changed := sorted(name for name in now if before.get(name, now[name]) != now[name]):
            log.warning("%s has changed (and %d others): extract all features again", changed[0], len(changed) - 1)
            for path in (self.output / ARCHIVE, self.statistics):
                path.unlink(missing_ok=True)
            shutil.rmtree(staging_folder(self.output / ARCHIVE), ignore_errors=True)
        if not now.items() <= before.items():
            self.ledger.record_all(now)

    def filter(self, split: str, segments: list[Segment]) -> list[Segment]:
        """Return the segments to use: of a training split, those with a text and a length within the limits.

        Raises:
            ValueError: no training segment is left, or a segment of another split has no frame or no text.
        """
        if not split.startswith("train"):
            if short := next((segment for segment in segments if segment.num_frames == 0), None):
                raise ValueError(
                    f"{split}: segment {short.id} has no frame ({short.length} samples): make it 25 ms or longer"
                )
            self.corpus.check_texts(split, segments, self.target_language)
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
        return manifest.Row(
            id=segment.id,
            audio=f"{ARCHIVE}:{place[0]}:{place[1]}",
            n_frames=segment.num_frames,
            tgt_text=self.text(segment),
            speaker=segment.speaker,
            src_text=segment.source,
            src_lang=self.corpus.languages[0],
            tgt_lang=self.target_language,
        )

    @property
    def target_language(self) -> str:
        """The language of the targets: that of the translations, or of the transcripts for ASR."""
        return self.corpus.languages[1 if self.options.task == "st" else 0]


def audio_fingerprint(wav: Path) -> str:
    """Return a digest that changes when the file is modified."""
    stat = wav.stat()
    return fingerprint(stat.st_size, stat.st_mtime_ns)


def prepare(pair: Path, output: Path | None, options: Options) -> Path:
    """Prepare the corpus at ``pair`` in ``output`` (``None``: the pair's folder); return the configuration's path.

    Raises:
        ValueError: a corpus that does not follow the layout, or options that do not fit it.
    """
    return Preparation(open_corpus(pair, options.layout, options.target_column), Path(output or pair), options).run()
