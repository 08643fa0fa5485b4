"""Compare graphs with the model that they were made from, on a signal that is the same every time."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mla_fairseq.attention import State
from mla_fairseq.edge.build import SpeechSteps
from mla_fairseq.edge.drive import Call, boundaries, decode, encoded, read
from mla_fairseq.models.decoder_steps import StepDecoder
from mla_fairseq.speech.samples import SAMPLE_RATE, SHIFT, WINDOW
from mla_fairseq.streaming.frontend import FeatureStream

SECONDS = 3.1  # no whole number of chunks
TOKENS = 12
EXACT = 1e-3
"""Largest error of a float graph, relative to the largest number; rounding gives about 1e-5."""
ROUNDED = 0.1
"""The same for the mean error of 8-bit graphs, relative to the mean number; rounding gives up to 0.046.

A test set shows what they cost in BLEU.
"""


def signal(seconds: float) -> NDArray:
    """Return noise (N,) in [-1, 1] whose loudness varies as that of speech."""
    rng = np.random.default_rng(1)
    samples = rng.standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32)
    loudness = np.repeat(rng.uniform(0.001, 0.3, len(samples) // 800 + 1), 800)[: len(samples)]
    return (0.25 * samples * loudness).clip(-1, 1).astype(np.float32)


@torch.no_grad()
def check_speech(speech: SpeechSteps, calls: Mapping[str, Call], int8: bool) -> dict[str, float]:
    """Return the error of each part of a model, given the calls of its graphs.

    Raises:
        ValueError: an error is larger than rounding explains.
    """
    samples = signal(min(SECONDS, speech.longest))
    frames = FeatureStream(speech.translator.normalisation).push(samples, final=True)
    whole = len(frames) // speech.encoder.window * speech.encoder.window  # the graph has no other frames
    # each part is compared on the model's own input, so that an error is that of one part
    parts = {
        "frontend": (_filter_banks(speech, samples, calls["frontend"]), torch.from_numpy(frames[:whole])),
        **_encoder(speech, torch.from_numpy(frames), calls["encoder"]),
        "decoder": _decoder(speech, torch.from_numpy(frames), calls),
    }
    return compare(parts, set(parts) - {"frontend"} if int8 else set())


def compare(parts: Mapping[str, tuple[Tensor, Tensor]], rounded: Container[str]) -> dict[str, float]:
    """Return the error of each part, of what was found and expected; ``rounded``: parts with 8-bit weights.

    Raises:
        ValueError: an error is larger than rounding explains.
    """
    errors = {name: error(*pair, mean=name in rounded) for name, pair in parts.items()}
    for name, found in errors.items():
        limit = ROUNDED if name in rounded else EXACT
        if not found <= limit:  # ``not <=`` is true for NaN
            raise ValueError(
                f"the graph of the {name} differs from the model (relative error {found:.2g}, at most {limit:g} is "
                "rounding): report it, with the options of the model"
            )
    return errors


def error(found: Tensor, expected: Tensor, mean: bool) -> float:
    """Return the largest error relative to the largest number, or the ``mean`` error relative to the mean number.

    It is infinite where the shapes differ.
    """
    if found.shape != expected.shape:
        return math.inf
    size = torch.Tensor.mean if mean else torch.Tensor.amax
    return float(size((found - expected).abs()) / size(expected.abs()).clamp_min(1e-6))


def _filter_banks(speech: SpeechSteps, samples: NDArray, call: Call) -> Tensor:
    window = speech.encoder.window
    size, step = (window - 1) * SHIFT + WINDOW, window * SHIFT
    starts = range(0, len(samples) - size + 1, step)
    inputs = [torch.from_numpy(samples[start : start + size]).unsqueeze(0) for start in starts]
    return torch.cat([call({"samples": part}, {})[0]["frames"][0] for part in inputs])


def _encoder(speech: SpeechSteps, frames: Tensor, call: Call) -> dict[str, tuple[Tensor, Tensor]]:
    model = speech.translator.model.encoder
    states = model.stream(frames.unsqueeze(0), {}, final=True)
    found = {"encoder": (encoded(speech.encoder, frames, call), states[:, 0])}
    if model.boundary is not None:
        found["boundary output"] = (boundaries(speech.encoder, frames, call), model.boundary(states)[:, 0])
    return found


def _decoder(speech: SpeechSteps, frames: Tensor, calls: Mapping[str, Call]) -> tuple[Tensor, Tensor]:
    model = speech.translator.model
    states = model.encoder.stream(frames.unsqueeze(0), {}, final=True)
    memories, own = speech.reader.fresh, speech.decoder.fresh
    state: State = {}
    token = torch.full((speech.options.beam,), model.decoder.dictionary.eos())
    found, expected = [], []
    for new in _pushes(states, speech.decoder.monotonic):
        memories = read(speech.reader, new[:, 0], memories, calls["reader"])
        scores, own = decode(speech.decoder, token, memories, own, calls["decoder"])
        found.append(scores)
        expected.append(_scores(model.decoder, token.unsqueeze(1), new.expand(-1, len(token), -1), state))
        token = expected[-1].argmax(-1)
    return torch.stack(found), torch.stack(expected)


def _pushes(states: Tensor, monotonic: bool) -> list[Tensor]:
    """Return the states that each token reads: some more of them, or all at once where heads decide."""
    if monotonic:
        return [states] + [states[:0]] * (TOKENS - 1)
    return list(states.split(-(-len(states) // TOKENS)))


def _scores(decoder: StepDecoder, tokens: Tensor, new: Tensor, state: State) -> Tensor:
    """Return the model's scores (B, V) after ``tokens`` (B, 1), with new states (n, B, C)."""
    if not decoder.monotonic:
        return decoder.step(tokens, new if len(new) else None, state)
    if len(new):
        decoder.feed(new, state, final=True)
    return decoder.attempt(tokens, state)[0]
