"""Let fairseq's training sets cut their sentences out of talks."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from fairseq.data import ConcatDataset, FairseqDataset, ResamplingDataset
from fairseq.data.audio.feature_transforms import CompositeAudioFeatureTransform
from fairseq.data.data_utils import numpy_seed
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mla_fairseq.data.talks import LONGEST, Ratios, TalkCutter, edges
from mla_fairseq.errors import UserError
from mla_fairseq.speech.features import NUM_BINS
from mla_fairseq.tasks.features import CheckedSpeechToTextDataset, FeatureCheck, TranscribedItem

KEPT = 1000  # sentences whose ends and beginnings a data worker keeps: 35 MB
RATIOS = {
    "context": "what is before and after them in a talk: the end of another sentence or silence before, silence or the "
    "next sentence after; --max-tokens counts its most frames (180) for every sentence",
    "lost-onset": "up to 60 ms cut off their beginning",
    "noise": "white noise of -80 to -38 dB",
}


def add_talk_args(parser: ArgumentParser) -> None:
    """Add the flags of the effects."""
    for name, effect in RATIOS.items():
        help_text = f"fraction of the training sentences with {effect} (default: 0)"
        parser.add_argument(f"--{name}-ratio", type=float, default=0.0, metavar="X", help=help_text)


@dataclass
class TalkItem(TranscribedItem):
    """A sentence in its surroundings; see ``Sentence``."""

    speech: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    end: int = 0
    readable: int = 0


class TalkDataset(CheckedSpeechToTextDataset):
    """fairseq's dataset, whose sentences are cut out of talks before they are normalised and masked.

    The surroundings depend on seed, epoch and sentence only. They come from the neighbours in the same talk or from any
    sentence of it, as often; rows with the same id up to its last ``_`` are a talk.
    """

    cutter: TalkCutter
    normalise: Any
    talks: dict[str, list[int]]
    edges: dict[int, tuple[np.ndarray, np.ndarray]]

    def __getitem__(self, index: int) -> TalkItem:
        """Return a sentence in its surroundings."""
        item = super().__getitem__(index)  # as it is on the disk
        rng = np.random.default_rng((self.seed, self.epoch.value, index))
        before, after = (partial(self._another, index, step, rng) for step in (-1, 1))  # read only if they are drawn
        cut = self.cutter(item.source.numpy(), before, after, rng)
        with numpy_seed(self.seed, self.epoch.value, index):
            source = torch.from_numpy(np.ascontiguousarray(self.normalise(cut.frames))).float()
        known: dict[str, Any] = vars(item) | {"source": source}
        return TalkItem(**known, speech=torch.from_numpy(cut.speech), end=cut.end, readable=cut.readable)

    def _another(self, index: int, step: int, rng: np.random.Generator) -> np.ndarray:
        """Return the end or (``step`` 1) the beginning of the neighbour, or of any sentence of the talk."""
        talk, other = self.talks[talk_of(self.ids, index)], index + step
        if not 0 <= other < len(self) or talk_of(self.ids, other) != talk_of(self.ids, index) or rng.random() < 0.5:
            other = talk[int(rng.integers(len(talk)))]
        if other not in self.edges:
            if len(self.edges) >= KEPT:
                self.edges.clear()
            self.edges[other] = edges(self._get_source_audio(other).numpy())
        return self.edges[other][step > 0]

    def collater(self, samples: list[TalkItem], return_order: bool = False) -> dict[str, Any]:
        """Return a batch as fairseq does, with ``speech`` (B, T), ``speech_end`` and ``readable_frames`` (B,)."""
        batch = super().collater(samples, return_order=True)
        if not samples:
            return batch
        order = batch["order"] if return_order else batch.pop("order")
        if not self.cutter.ratios.context:
            return batch
        speech = pad_sequence([item.speech for item in samples], batch_first=True)
        batch |= {"speech": speech[order], "speech_end": torch.tensor([item.end for item in samples])[order]}
        batch["net_input"]["readable_frames"] = torch.tensor([item.readable for item in samples])[order]
        return batch

    def num_tokens(self, index: int) -> int:
        """Return the most frames that a sentence may have."""
        return super().num_tokens(index) + (LONGEST if self.cutter.ratios.context else 0)


def talk_of(ids: list[str] | None, index: int) -> str:
    """Return the talk of a row; without ids, all rows are one."""
    return "" if ids is None else ids[index].rpartition("_")[0]


def cut_from_talks(dataset: FairseqDataset, args: Namespace) -> None:
    """Let a training set, and those that it is made of, cut their sentences out of talks; other sets stay as they are.

    Raises:
        UserError: features of another tool, audio files, or transforms that join sentences.
    """
    ratios = Ratios(*(getattr(args, f"{name.replace('-', '_')}_ratio", 0.0) for name in RATIOS))
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            cut_from_talks(part, args)
    elif isinstance(dataset, ResamplingDataset):
        cut_from_talks(dataset.dataset, args)
    elif ratios != Ratios() and dataset.is_train_split:
        check(dataset)
        _, *later = dataset.feature_transforms.transforms
        bins = dataset.feature_transforms.transforms[0]
        dataset.normalise = CompositeAudioFeatureTransform(later)
        dataset.feature_transforms = CompositeAudioFeatureTransform([bins])
        dataset.__class__, dataset.cutter = TalkDataset, TalkCutter(ratios)
        dataset.talks, dataset.edges = {}, {}
        for index in range(len(dataset)):
            dataset.talks.setdefault(talk_of(dataset.ids, index), []).append(index)


def check(dataset: Any) -> None:
    """Check that the features of a training set are those of the front end.

    Raises:
        UserError: they are not.
    """
    flags = ", ".join(f"--{name}-ratio" for name in RATIOS)
    if type(dataset) is not CheckedSpeechToTextDataset or dataset.cfg.use_audio_input:
        raise UserError(f"{flags} need features, but the set has audio files: prepare the data with mla-prepare")
    first = dataset.feature_transforms.transforms[0]
    if isinstance(first, FeatureCheck) and first.bins not in (None, NUM_BINS):
        raise UserError(f"{flags} need {NUM_BINS} bins, but the features have {first.bins}: prepare with mla-prepare")
    if dataset.dataset_transforms.transforms:
        raise UserError(f"{flags} are not supported with dataset_transforms: remove them from the configuration")
