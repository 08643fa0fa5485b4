"""Report broken features when fairseq's datasets read them, also in data workers, and mask them reproducibly."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.sharedctypes import RawValue
from typing import Any

import numpy as np
import torch
from fairseq.data import ConcatDataset, FairseqDataset, ResamplingDataset
from fairseq.data.audio.feature_transforms import CompositeAudioFeatureTransform
from fairseq.data.audio.speech_to_text_dataset import (
    SpeechToTextDataset,
    SpeechToTextDatasetItem,
    SpeechToTextMultitaskDataset,
)
from fairseq.data.audio.text_to_speech_dataset import TextToSpeechDataset
from fairseq.data.data_utils import numpy_seed
from fairseq.data.iterators import EpochBatchIterator

from mla_fairseq.errors import UserError

LARGEST = 1e6  # of features; those of speech are below 100
FIX = "prepare the data again, or copy the archive again"


class FeatureError(ValueError):
    """Broken features. A plain exception, because a ``SystemExit`` would end a data worker without its message."""


class FeatureCheck:
    """The first transform of a dataset: pass on features (frames, bins) as float32 after checking them.

    ``bins`` is their number of bins; ``None``: it is not known.
    """

    def __init__(self, bins: int | None) -> None:
        self.bins = bins

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the features.

        Raises:
            FeatureError: another type or shape, NaN, infinity or numbers that no logarithm gives.
        """
        if not isinstance(features, np.ndarray) or not np.issubdtype(features.dtype, np.floating):
            raise FeatureError(f"the features are not float ({getattr(features, 'dtype', type(features).__name__)})")
        if features.ndim != 2 or self.bins not in (None, features.shape[1]):
            wanted = f"(frames, {'bins' if self.bins is None else self.bins})"
            raise FeatureError(f"the features have shape {features.shape}, but {wanted} is needed")
        usable = np.abs(features) < LARGEST  # False for NaN
        if not usable.all():
            frame = int(np.flatnonzero(~usable.all(1))[0])
            raise FeatureError(f"frame {frame} of the features is not finite, or above {LARGEST:g}")
        return features.astype(np.float32, copy=False)

    def __repr__(self) -> str:
        return f"FeatureCheck(bins={self.bins})"


class CheckedFeatures(SpeechToTextDataset):
    """A mixin for fairseq's speech datasets, whose errors name the file and the utterance.

    Random transforms depend on seed, epoch and utterance only, so a training that resumes, or has another number of
    data workers, sees the same features. fairseq draws them from one generator of each process.
    """

    seed: int
    epoch: Any  # in shared memory: fairseq's data workers live for all epochs and have a copy of the dataset

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that random transforms depend on."""
        super().set_epoch(epoch)
        self.epoch.value = epoch

    def __getitem__(self, index: int) -> Any:
        """Return an utterance as fairseq does."""
        with numpy_seed(self.seed, self.epoch.value, index):
            return super().__getitem__(index)

    def _get_source_audio(self, index: int | list[int]) -> torch.Tensor:
        """Return the features of an utterance, or of several in a row, as fairseq does.

        Raises:
            FeatureError: they cannot be read, or have another length than the manifest names.
        """
        places = index if isinstance(index, list) else [index]
        try:
            source = super()._get_source_audio(index)
            frames = sum(self.n_frames[place] for place in places)
            if not self.cfg.use_audio_input and len(source) != frames:
                raise FeatureError(f"there are {len(source)} frames, but n_frames in the manifest is {frames}")
        except Exception as error:  # numpy, soundfile and fairseq raise a dozen types here, all for a broken file
            files = ", ".join(str(self.audio_paths[place]) for place in places)
            names = "" if self.ids is None else f" (utterance {', '.join(str(self.ids[place]) for place in places)})"
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FeatureError(f"{files}{names}: {reason}: {FIX}") from error
        return source


@dataclass
class TranscribedItem(SpeechToTextDatasetItem):
    """An utterance with its transcript, as in the manifest."""

    transcript: str = ""


class CheckedSpeechToTextDataset(CheckedFeatures, SpeechToTextDataset):
    """fairseq's dataset, with checks and transcripts."""

    def __getitem__(self, index: int) -> TranscribedItem:
        """Return an utterance as fairseq does, with its transcript."""
        # transforms that join utterances do not name those that they join
        transcript = "" if self.dataset_transforms.transforms else self.src_texts[index]
        return TranscribedItem(**vars(super().__getitem__(index)), transcript=transcript)

    def collater(self, samples: list[TranscribedItem], return_order: bool = False) -> dict[str, Any]:
        """Return a batch as fairseq does, with ``transcripts``, a text for each row."""
        batch = super().collater(samples, return_order=True)
        if samples:
            order = batch["order"] if return_order else batch.pop("order")
            batch["transcripts"] = [samples[row].transcript for row in order.tolist()]
        return batch


class CheckedMultitaskDataset(CheckedFeatures, SpeechToTextMultitaskDataset):
    """fairseq's dataset of several tasks, with checks."""


class CheckedTextToSpeechDataset(CheckedFeatures, TextToSpeechDataset):
    """fairseq's dataset of text to speech, with checks."""


CHECKED = {
    SpeechToTextDataset: CheckedSpeechToTextDataset,
    SpeechToTextMultitaskDataset: CheckedMultitaskDataset,
    TextToSpeechDataset: CheckedTextToSpeechDataset,
}


def check_features(dataset: FairseqDataset, bins: int | None, seed: int = 1) -> None:
    """Let fairseq's dataset, and those that it is made of, check their features when they are read.

    Args:
        dataset: the dataset; it is changed.
        bins: number of bins of the features; ``None``: it is not known.
        seed: of random transforms.
    """
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            check_features(part, bins, seed)
    elif isinstance(dataset, ResamplingDataset):
        check_features(dataset.dataset, bins, seed)
    elif type(dataset) in CHECKED:
        # fairseq's functions that make datasets name their classes, so there is no place to name another one
        dataset.__class__ = CHECKED[type(dataset)]
        dataset.seed, dataset.epoch = seed, RawValue("l", 1)
        if not dataset.cfg.use_audio_input:
            given = dataset.feature_transforms
            others = [] if given is None else given.transforms
            dataset.feature_transforms = CompositeAudioFeatureTransform([FeatureCheck(bins), *others])


class CheckedBatchIterator(EpochBatchIterator):
    """fairseq's iterator over batches, whose errors of features end a command in one line."""

    @property
    def first_batch(self) -> Any:
        """Return the first batch, which fairseq reads before the others.

        Raises:
            UserError: its features are broken.
        """
        try:
            return super().first_batch
        except FeatureError as error:
            raise UserError(str(error)) from error

    def _get_iterator_for_epoch(self, *args: Any, **kwargs: Any) -> Any:
        batches = super()._get_iterator_for_epoch(*args, **kwargs)
        if batches is not None:  # as at the end of an epoch that is resumed
            batches._itr = _Reporting(batches._itr)  # of fairseq's counting iterator
        return batches


class _Reporting:
    """Pass on batches; raise UserError where features are broken."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> _Reporting:
        return self

    def __next__(self) -> Any:
        try:
            return next(self.batches)
        except FeatureError as error:
            # torch puts the traceback of the worker in front of the message
            raise UserError(str(error).rstrip().rpartition(f"{FeatureError.__name__}: ")[2]) from error

    def take(self, n: int) -> None:
        """Let fairseq's buffer read no more than ``n`` batches."""
        if hasattr(self.batches, "take"):
            self.batches.take(n)


def check_batches(iterator: Any) -> Any:
    """Return the iterator after letting it report broken features in one line."""
    if type(iterator) is EpochBatchIterator:
        iterator.__class__ = CheckedBatchIterator
    return iterator
