"""Convert samples to normalised filter banks as they arrive, exactly as in training."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from mla_fairseq.files import check_file, read_text
from mla_fairseq.parsing import parse_yaml
from mla_fairseq.speech.features import NUM_BINS, FilterBankStream, GlobalCMVN


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each filter bank, (80,) float32 each.

    ``utterance``: they are those of the recording so far, so only a full-context encoder can follow; ``mean`` is 0 and
    ``std`` 1.
    """

    mean: np.ndarray
    std: np.ndarray
    utterance: bool = False

    @classmethod
    def load(cls, config: Path | str) -> Normalisation:
        """Load the statistics that the data configuration ``config`` of the model names.

        Raises:
            ValueError: the file or the statistics are missing, or the features were transformed otherwise.
        """
        config = check_file(Path(config), "give the prepared data folder and its --config-yaml")
        text = read_text(config)
        try:
            settings = parse_yaml(text)
        except ValueError:
            settings = None
        if not isinstance(settings, dict):
            raise ValueError(f"{config} is not a data configuration: give the --config-yaml of the prepared data")
        transforms = settings.get("feature_transforms", settings.get("transforms")) or {}
        used = transforms.get("_eval", transforms.get("*")) or []  # fairseq's order for sets that are not trained on
        if used == ["utterance_cmvn"] and all((settings.get("utterance_cmvn") or {}).values()):  # norms of both kinds
            return cls(np.zeros(NUM_BINS, np.float32), np.ones(NUM_BINS, np.float32), utterance=True)
        if used != ["global_cmvn"]:
            raise ValueError(
                f"{config} transforms features by {', '.join(used) or 'nothing'}, but streaming supports only "
                "global_cmvn and, for full-context encoders, utterance_cmvn: prepare the data with mla-prepare --cmvn "
                "global and train again"
            )
        statistics = config.parent / (settings.get("global_cmvn") or {}).get("stats_npz_path", "gcmvn.npz")
        return cls(*GlobalCMVN.load(statistics, NUM_BINS))

    def over_recording(self, frames: Tensor) -> Tensor:
        """Return the frames (1, T, 80) of a recording so far, normalised by its own statistics if they are needed."""
        if not self.utterance:
            return frames
        mean = frames.mean(1, keepdim=True)
        variance = frames.square().mean(1, keepdim=True) - mean.square()
        return (frames - mean) / variance.clamp_min(1e-10).sqrt()  # fairseq's formula and bound


class FeatureStream:
    """Features of one recording at 16 kHz whose samples arrive in segments of any size.

    The frames do not depend on the sizes of the segments.
    """

    def __init__(self, normalisation: Normalisation) -> None:
        self.normalisation = normalisation
        self.banks = FilterBankStream()

    def push(self, samples: ArrayLike, final: bool = False) -> np.ndarray:
        """Process the next samples (N,), float in [-1, 1] or int16; return the frames (n, 80) that are now complete.

        A frame is 10 ms of audio, float32. ``final`` ends the recording.

        Raises:
            ValueError: the samples are not one channel of speech (``speech.features.to_kaldi_scale``).
            RuntimeError: the recording has ended.
        """
        return (self.banks.push(samples, final) - self.normalisation.mean) / self.normalisation.std

    def fork(self) -> FeatureStream:
        """Return an independent copy. Copies no array."""
        other = copy.copy(self)
        other.banks = copy.copy(self.banks)  # a shallow copy is enough: its arrays are replaced, never changed
        return other
