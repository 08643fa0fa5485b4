"""Features of recordings that no manifest lists, as a dataset for fairseq."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from fairseq.data.audio.speech_to_text_dataset import SpeechToTextDataset
from torch import Tensor

from mla_fairseq.data import archive
from mla_fairseq.data.manifest import SLICE
from mla_fairseq.files import check_file
from mla_fairseq.speech import filter_banks, load_audio
from mla_fairseq.tasks.features import FeatureCheck


class Recordings(SpeechToTextDataset):
    """fairseq's dataset over arrays in memory: ``audio_paths`` holds features (frames, bins), not paths."""

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """Return false: a task that kept the iterator would keep the features of everything it has translated."""
        return False

    def check_tgt_lang_tag(self) -> None:
        """Check nothing: recordings have no target language, and the task forces the tag of ``--tgt-lang``."""

    def _get_source_audio(self, index: int) -> Tensor:
        """Return transformed features, (frames, bins) float32."""
        features = self.audio_paths[index]
        transform = self.feature_transforms
        # a copy, because some of fairseq's transforms work in place
        return torch.from_numpy(features.copy() if transform is None else transform(features.copy())).float()


def read_features(source: str, bins: int | None) -> np.ndarray:
    """Return the features (frames, bins) of an audio file, an array file (.npy) or a place (archive:offset:length).

    Raises:
        ValueError: the source is missing or broken, too short, or of another number of bins; the message names it.
    """
    if not source:
        raise ValueError("an empty line names no audio file: remove it")
    place = SLICE.fullmatch(source)
    if place is None and not source.endswith(".npy"):
        return _checked(source, audio_features(source, load_audio(Path(source))), bins)
    path, offset, length = place.groups() if place else (source, 0, -1)
    check_file(Path(path), "correct the name, or prepare the data again")
    try:
        features = archive.read(Path(path), int(offset), int(length))
    except (ValueError, OSError, EOFError) as error:  # numpy raises each of them for a file that is no array
        raise ValueError(f"{source} has no features ({error}): correct it, or prepare the data again") from error
    return _checked(source, features, bins)


def _checked(source: str, features: np.ndarray, bins: int | None) -> np.ndarray:
    try:
        features = FeatureCheck(bins)(features)
        if not len(features):
            raise ValueError("there are no frames")
    except ValueError as error:
        raise ValueError(f"{source}: {error}: use a source that fits the data") from error
    return features


def audio_features(name: str, samples: np.ndarray) -> np.ndarray:
    """Return the filter banks (frames, 80) of samples (N,) at 16 kHz.

    Raises:
        ValueError: samples that ``filter_banks`` refuses; the message names the file.
    """
    try:
        return filter_banks(samples)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
