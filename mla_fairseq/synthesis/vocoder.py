"""Vocoders of the user's, beside Griffin-Lim: from log-mel frames to samples."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from fairseq.models.text_to_speech.hifigan import Generator
from torch import Tensor


def hifi_gan(
    checkpoint: Path, config: Path, features: Mapping[str, object] | None = None
) -> Callable[[Tensor], Tensor]:
    """A HiFi-GAN generator (arXiv 2010.05646) from the user's files: weights of its authors' format, and their json.

    Log-mel frames (T, F) -> samples (time,). Nothing in the files is run. ``features`` are those of a data
    configuration, which the generator must fit.

    Raises:
        ValueError: the files hold no such generator, or one for other spectrograms.
    """
    try:
        settings = json.loads(Path(config).read_text(encoding="utf-8"))
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)["generator"]
        model = Generator(settings)
        model.load_state_dict(weights)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{checkpoint} and {config} hold no HiFi-GAN generator: {reason}") from error
    if features is not None:
        _check_fit(config, settings, features)
    model.eval().remove_weight_norm()

    @torch.no_grad()
    def speak(frames: Tensor) -> Tensor:
        return model(frames.detach().cpu().float().T[None]).squeeze()

    return speak


_HIFI_GAN_NAMES = {
    "sampling_rate": "sample_rate",
    "hop_size": "hop_length",
    "win_size": "win_length",
    "n_fft": "n_fft",
    "num_mels": "n_mels",
    "fmin": "f_min",
    "fmax": "f_max",
}


def _check_fit(config: Path, settings: Mapping[str, object], features: Mapping[str, object]) -> None:
    given = {mine: settings[theirs] for theirs, mine in _HIFI_GAN_NAMES.items() if settings.get(theirs) is not None}
    given["hop_length"] = math.prod(settings["upsample_rates"])  # what it does, whatever it says
    for name, value in given.items():
        if value != features.get(name, value):
            raise ValueError(
                f"{config} is for spectrograms with {name} {value}, but these data have {features[name]}: take another "
                "vocoder, or prepare the data so"
            )
