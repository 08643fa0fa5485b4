"""Export a text-to-speech model: its steps, what a runtime must know about them, and their check."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mla_fairseq.attention import State
from mla_fairseq.edge.attention import CrossSite
from mla_fairseq.edge.check import compare
from mla_fairseq.edge.drive import Call
from mla_fairseq.edge.drive_voice import decoded, encoded, refined
from mla_fairseq.edge.frames import FrameStep
from mla_fairseq.edge.postnet import MagnitudeStep, PostnetStep
from mla_fairseq.edge.runtime.names import TEXT_TO_SPEECH
from mla_fairseq.edge.step import Step
from mla_fairseq.edge.text import TextStep
from mla_fairseq.edge.write import write_model
from mla_fairseq.models.tts_transformer_mla import TTSTransformerMLAModel
from mla_fairseq.speech.mel import MelSpectrogram
from mla_fairseq.synthesis.speaker import Speaker

SYMBOLS = 256  # of the longest sentence: about 15 seconds of speech
CHUNK = 8  # decoder steps of a call of the post-net: one at a time would take four times as long
TESTED = 20  # symbols, and decoder steps, of the check


class VoiceSteps:
    """The steps of a text-to-speech model.

    Args:
        speaker: the model, which is copied.
        symbols: symbols of the longest sentence.

    Attributes:
        steps: the steps by name, which is that of their graph.
        config: the content of ``config.json``, without its files.

    Raises:
        ValueError: a mechanism whose state grows, or no length is known where one is needed.
    """

    def __init__(self, speaker: Speaker, symbols: int = SYMBOLS) -> None:
        self.model = model = copy.deepcopy(speaker.model).eval().requires_grad_(False)
        self.generator, self.mel = speaker.generator, MelSpectrogram.from_config(speaker.features)
        sites = [CrossSite(layer.encoder_attn, symbols, 0) for layer in model.decoder.transformer_layers]
        self.encoder = TextStep(model, sites, symbols)
        self.decoder = FrameStep(model.decoder, sites, self.generator.limits.max_steps)
        self.postnet = PostnetStep(model.decoder, CHUNK, self.generator.mean, self.generator.std)
        self.magnitudes = MagnitudeStep(self.mel, CHUNK * model.decoder.n_frames_per_step)
        self.steps: dict[str, Step] = {
            "encoder": self.encoder, "decoder": self.decoder, "postnet": self.postnet,
            "magnitudes": self.magnitudes,
        }  # fmt: skip
        self.config = self._config(speaker)
        model.decoder.prenet[0].dropout = 0.0  # the steps are given its factors, so that it can be compared without

    def _config(self, speaker: Speaker) -> dict[str, Any]:
        dictionary, decoder = speaker.task.source_dictionary, self.model.decoder
        return {
            "type": TEXT_TO_SPEECH,
            **{name: getattr(self.mel, name) for name in ("sample_rate", "hop_length", "win_length")},
            "frames_per_step": decoder.n_frames_per_step,
            "delay": self.postnet.delay,
            "prenet_dropout": float(decoder.prenet[0].dropout),
            "limits": asdict(self.generator.limits),
            "eos": dictionary.eos(),
            "pad": dictionary.pad(),
            "unk": dictionary.unk(),
            "spoken_text": speaker.task.data_cfg.config.get("spoken_text") or {},
            "speakers": list(speaker.task.speaker_to_id or {}),
        }


def export_voice(speaker: Speaker, output: Path, int8: bool) -> None:
    """Write the folder of a text-to-speech model; see ``VoiceSteps`` and ``write_model`` for the errors."""
    voice = VoiceSteps(speaker)
    version = sys.modules[__name__.partition(".")[0]].__version__
    metadata = {"model_type": "mla_tts", "version": version}
    check = partial(check_voice, voice, int8=int8)
    write_model(
        output,
        voice.steps,
        voice.config | {"version": version},
        speaker.task.source_dictionary.symbols,
        metadata,
        check,
        int8,
    )


@torch.no_grad()
def check_voice(voice: VoiceSteps, calls: Mapping[str, Call], int8: bool) -> dict[str, float]:
    """Return the error of each part of a model, given the calls of its graphs, on a text of random symbols.

    Raises:
        ValueError: an error is larger than rounding explains.
    """
    model, numbers = voice.model, torch.Generator().manual_seed(1)
    symbols = min(TESTED, voice.encoder.data["tokens"].shape[1])
    tokens = torch.randint(
        model.encoder.dictionary.nspecial, len(model.encoder.dictionary), (symbols,), generator=numbers
    )
    frames, ends = _frames(model, tokens)
    memories = encoded(voice.encoder, tokens, calls["encoder"])
    found, found_ends = decoded(voice.decoder, memories, frames, calls["decoder"])
    features = voice.generator.denormalize(model.decoder.refine(frames.unsqueeze(0))[0].reshape(-1, voice.mel.n_mels))
    rows = voice.magnitudes.data["features"].shape[0]
    given = {"features": features[:rows]}
    exact = np.maximum(np.exp(given["features"].numpy()) @ np.linalg.pinv(voice.mel.filters).T, 0)
    parts = {
        "decoder": (found, frames),
        # both probabilities, because one alone may be all rounding
        "end": (torch.stack((found_ends, 1 - found_ends)), torch.stack((ends, 1 - ends))),
        "post-net": (refined(voice.postnet, frames, calls["postnet"]).reshape(features.shape), features),
        "magnitudes": (calls["magnitudes"](given, {})[0]["magnitudes"], torch.from_numpy(exact)),
    }
    return compare(parts, set(parts) - {"magnitudes"} if int8 else set())


def _frames(model: TTSTransformerMLAModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frames (T, n F) that a model without dropout emits for a text (S,), and its ends (T,)."""
    speaker = None if model.encoder.embed_speaker is None else torch.zeros(1, 1, dtype=torch.long)
    source, state = model.encoder(tokens.unsqueeze(0), speaker=speaker), State()
    frame, frames, ends = torch.zeros(1, 1, model.decoder.out_dim), [], []
    for _ in range(TESTED):
        _, end, extra = model.decoder(frame, source, incremental_state=state, need_attn=False)
        frame = extra["feature_out"]
        frames.append(frame[0])
        ends.append(end.sigmoid()[0, :, 0])
    return torch.cat(frames), torch.cat(ends)
