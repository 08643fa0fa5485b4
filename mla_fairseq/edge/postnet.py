"""What follows the decoder, as steps: the post-net some steps behind it, and magnitudes for a vocoder."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.convolution import RowConvolution
from mla_fairseq.edge.step import Step, number
from mla_fairseq.edge.subsample import between
from mla_fairseq.models.speech_decoder import SpeechDecoder
from mla_fairseq.speech.mel import MelSpectrogram


class PostnetStep(Step):
    """Refine the frames of some decoder steps, as the post-net does with all of them at once.

    Data: ``frames`` (C, n F), those of the next C steps, or anything after the last step; ``length`` (1,), the number
    of steps, or more while it is not known. Result: ``features`` (C, n F), log-mel frames of the steps from
    ``taken - delay`` on, not normalised. State: ``taken`` (1,), the steps of earlier calls; ``held`` (delay, n F), the
    last of them; and ``conv.I`` (width - 1, channels), the last inputs of each convolution.

    Args:
        decoder: of text to speech.
        chunk: steps of a call (C).
        mean, std: (F,), the normalisation of the training data, which is undone; ``None``: there is none.

    Attributes:
        delay: steps that the output is behind the input.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, decoder: SpeechDecoder, chunk: int, mean: Tensor | None = None, std: Tensor | None = None
    ) -> None:
        super().__init__()
        layers, bins, repeats = list(decoder.postnet.convolutions), decoder.out_dim, decoder.n_frames_per_step
        self.chunk = chunk
        self.convolutions = [RowConvolution(layer[0], layer[1]) for layer in layers]
        self.activations = [layer[2:] for layer in layers]
        # so that their parameters are those of the step
        self.registered = nn.ModuleList([*self.convolutions, *self.activations])
        self.delay = sum(convolution.width // 2 for convolution in self.convolutions)
        one = decoder.feat_proj.weight.new_ones(bins)
        self.register_buffer("mean", 0 * one if mean is None else mean.repeat(repeats).to(one))
        self.register_buffer("std", one if std is None else std.repeat(repeats).to(one))
        self.data = {"frames": one.new_zeros(chunk, bins), "length": number(chunk)}
        self.fresh = {"taken": number(), "held": one.new_zeros(self.delay, bins)}
        for i, convolution in enumerate(self.convolutions):
            self.fresh[f"conv.{i}"] = one.new_zeros(convolution.width - 1, convolution.channels)
        self.results = ("features",)

    def compute(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        x, first = data["frames"], state["taken"]
        known, new = torch.cat((state["held"], x)), {"taken": first + self.chunk}
        for i, (convolution, activation) in enumerate(zip(self.convolutions, self.activations, strict=True)):
            # what is before the first step and after the last one is zero for every convolution, as padding is
            real = between(first, self.chunk, data["length"]).unsqueeze(1)
            x = torch.cat((state[f"conv.{i}"], x * real))
            new[f"conv.{i}"] = x[self.chunk :]
            x, first = activation(convolution(x)), first - convolution.width // 2
        features = (known[: self.chunk] + x) * self.std + self.mean
        return {"features": features}, new | {"held": known[self.chunk :]}


class MagnitudeStep(Step):
    """Return linear magnitudes ``magnitudes`` (T, n_fft / 2 + 1) of log-mel ``features`` (T, F), for Griffin-Lim.

    Args:
        mel: settings of the spectrograms.
        frames: frames of a call (T).
    """

    inverse: Tensor

    def __init__(self, mel: MelSpectrogram, frames: int) -> None:
        super().__init__()
        self.register_buffer("inverse", torch.from_numpy(np.linalg.pinv(mel.filters).astype(np.float32)))
        self.data, self.fresh = {"features": torch.zeros(frames, mel.n_mels)}, {}
        self.results = ("magnitudes",)

    def compute(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        # the pseudo-inverse gives negative numbers too, which are no magnitudes
        return {"magnitudes": (data["features"].exp() @ self.inverse.transpose(0, 1)).clamp_min(1e-10)}, {}
