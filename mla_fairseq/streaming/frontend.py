"""Samples to normalised filter banks as they arrive: the numbers that the model was trained on."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from mla_fairseq.speech.features import FilterBankStream


@dataclass(frozen=True)
class Normalisation:
    """Global mean and standard deviation of each filter bank, (80,) float32."""

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def read(cls, config: Path) -> Normalisation:
        """Read them by the data configuration that the model was trained with.

        Raises:
            ValueError: the file or the statistics are missing, or the features were not normalised globally.
        """
        if not config.is_file():
            raise ValueError(f"{config} is missing: give the prepared data folder and its --config-yaml")
        try:
            settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            settings = None
        if not isinstance(settings, dict):
            raise ValueError(f"{config} is not a data configuration: give the --config-yaml of the prepared data")
        transforms = settings.get("feature_transforms", settings.get("transforms")) or {}
        used = transforms.get("_eval", transforms.get("*")) or []  # fairseq's choice for sets that are not trained on
        if used != ["global_cmvn"]:
            raise ValueError(
                f"{config} transforms features by {', '.join(used) or 'nothing'}, but a stream supports global_cmvn "
                "alone, as the mean of an utterance is known only at its end: prepare the data with --cmvn global, and "
                "train again"
            )
        statistics = config.parent / (settings.get("global_cmvn") or {}).get("stats_npz_path", "gcmvn.npz")
        if not statistics.is_file():
            raise ValueError(f"{statistics} is missing: it was written beside {config.name}, copy it there")
        with np.load(statistics) as arrays:
            return cls(arrays["mean"].astype(np.float32), arrays["std"].astype(np.float32))


class FeatureStream:
    """The features (n, 80) float32 of one recording at 16 kHz, whose samples arrive in chunks of any size."""

    def __init__(self, normalisation: Normalisation) -> None:
        self.normalisation = normalisation
        self.banks = FilterBankStream()

    def push(self, samples, final: bool = False) -> np.ndarray:
        """Take the next samples (N,), float in [-1, 1] or int16; return the frames (n, 80) that are now complete.

        Raises:
            ValueError: samples that are not one channel of speech (``speech.features.to_kaldi_scale``).
            RuntimeError: the recording has ended.
        """
        return (self.banks.push(samples, final) - self.normalisation.mean) / self.normalisation.std

    def fork(self) -> FeatureStream:
        """Return an independent copy."""
        other = copy.copy(self)
        other.banks = copy.copy(self.banks)
        return other
