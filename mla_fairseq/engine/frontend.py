"""Samples to normalised filter banks as they come: the same numbers as the data preparation gave the training."""

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
        """From the data configuration that the model was trained with.

        Raises:
            ValueError: the file or the statistics are missing, or the features were not normalised globally.
        """
        if not config.is_file():
            raise ValueError(f"{config} is missing: give the prepared data folder and its --config-yaml")
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        transforms = settings.get("feature_transforms", settings.get("transforms", {}))
        if "global_cmvn" not in transforms.get("*", []):
            raise ValueError(
                f"{config} normalises by {', '.join(transforms.get('*', [])) or 'nothing'}: mean and deviation of an "
                "utterance are known when it is over, so this model cannot stream. Prepare the data with "
                "--cmvn global, and train again"
            )
        statistics = config.parent / settings["global_cmvn"]["stats_npz_path"]
        if not statistics.is_file():
            raise ValueError(f"{statistics} is missing: it was written beside {config.name}, copy it there")
        with np.load(statistics) as arrays:
            return cls(arrays["mean"].astype(np.float32), arrays["std"].astype(np.float32))


class FeatureStream:
    """One recording at 16 kHz, in pieces of any size, to features (n, 80) float32; ``fork`` is a snapshot."""

    def __init__(self, normalisation: Normalisation) -> None:
        self.normalisation = normalisation
        self.banks = FilterBankStream()

    def push(self, samples, final: bool = False) -> np.ndarray:
        """The next samples (N,), float in [-1, 1] or int16, to the frames (n, 80) that became complete.

        Raises:
            ValueError: samples that are no speech of one channel (``speech.features.to_kaldi_scale``).
            RuntimeError: after the end.
        """
        return (self.banks.push(samples, final) - self.normalisation.mean) / self.normalisation.std

    def fork(self) -> FeatureStream:
        """A copy that goes its own way from here."""
        other = copy.copy(self)
        other.banks = copy.copy(self.banks)
        return other
