"""Vocoders, which convert log-mel frames (T, F) to samples (time,): Griffin-Lim, and HiFi-GAN from given files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq.models.text_to_speech.hifigan import Generator
from torch import Tensor

from mla_fairseq.checkpoints import check_finite
from mla_fairseq.errors import UserError, install
from mla_fairseq.files import check_file, read_json

Vocoder = Callable[[Tensor], Tensor]


def griffin_lim(features: Mapping[str, object]) -> Vocoder:
    """Return a Griffin-Lim vocoder for the ``features`` settings of a data configuration.

    Raises:
        UserError: librosa is not installed; only synthesis needs it.
    """
    try:
        import librosa  # noqa: F401 -- mel.py imports it when it makes samples
    except ImportError as error:
        raise UserError(f"Griffin-Lim needs {error.name}: {install('tts')}") from error
    from mla_fairseq.speech.mel import MelSpectrogram

    mel = MelSpectrogram.from_config(features)
    return lambda frames: torch.from_numpy(mel.griffin_lim(frames.detach().cpu().float().numpy()))


def hifi_gan(checkpoint: Path, config: Path, features: Mapping[str, object] | None = None) -> Vocoder:
    """Return a HiFi-GAN vocoder (arXiv 2010.05646) from files in its authors' format. Runs no code in them.

    Args:
        checkpoint: weights of the generator.
        config: its json configuration.
        features: settings of a data configuration that the generator must match; ``None``: not checked.

    Raises:
        ValueError: the files hold no such generator, or one for other spectrograms.
    """
    try:
        settings = read_json(config)
        model = _generator(checkpoint, settings)
    except Exception as error:  # torch and fairseq raise a dozen types here, all for files that cannot be used
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{checkpoint} and {config} are not a HiFi-GAN generator ({reason}): give files in its authors' format"
        ) from error
    if features is not None:
        _check_fit(config, settings, features)

    @torch.no_grad()
    def speak(frames: Tensor) -> Tensor:
        return model(frames.detach().cpu().float().T[None]).squeeze()

    return speak


def _generator(checkpoint: Path, settings: Mapping[str, Any]) -> Generator:
    """Return the generator in a file, after a trial with two frames. Any error means that it cannot be used."""
    weights = torch.load(check_file(checkpoint, "correct its name"), map_location="cpu", weights_only=True)["generator"]
    check_finite(checkpoint, weights)
    with torch.device("meta"):  # takes no memory: a broken configuration may name any sizes
        model = Generator(settings)
    model.load_state_dict(weights, assign=True)
    model.float().eval().remove_weight_norm()
    with torch.no_grad():
        model(torch.zeros(1, model.conv_pre.in_channels, 2))
    return model


_HIFI_GAN_NAMES = {
    "sampling_rate": "sample_rate",
    "hop_size": "hop_length",
    "win_size": "win_length",
    "n_fft": "n_fft",
    "num_mels": "n_mels",
    "fmin": "f_min",
    "fmax": "f_max",
}


def _check_fit(config: Path, settings: Mapping[str, Any], features: Mapping[str, object]) -> None:
    given = {name: settings[alias] for alias, name in _HIFI_GAN_NAMES.items() if settings.get(alias) is not None}
    given["hop_length"] = math.prod(settings["upsample_rates"])  # the true one, even if the file names another
    for name, value in given.items():
        if value != features.get(name, value):
            raise ValueError(
                f"{config} is for spectrograms with {name} {value}, but the data have {features[name]}: use another "
                "vocoder or prepare the data with that value"
            )
