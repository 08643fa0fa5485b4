"""Run the steps of text to speech, or their graphs, as a runtime does: for tests, and for the check of an export."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.drive import Call
from mla_fairseq.edge.frames import FrameStep
from mla_fairseq.edge.postnet import PostnetStep
from mla_fairseq.edge.runtime.names import UNKNOWN
from mla_fairseq.edge.text import TextStep


def encoded(step: TextStep, tokens: Tensor, call: Call, speaker: int = 0) -> Tensors:
    """Return the results of the encoder for a sentence (S,)."""
    padding = step.data["tokens"].shape[1] - len(tokens)
    data = {"tokens": F.pad(tokens, (0, padding), value=step.encoder.padding_idx), "speaker": torch.tensor([speaker])}
    return call({name: data[name].unsqueeze(0) for name in step.data}, {})[0]


def decoded(step: FrameStep, memories: Tensors, frames: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """Return the frames (T, n F) that each step emits after these frames (T, n F), and its probabilities of the end.

    Args:
        step: the decoder.
        memories: the results of the encoder.
        frames: those that the steps are given instead of the ones that they emit; the first step is given none.
        call: runs the step.
    """
    data = {name: memories.get(name, step.data[name]) for name in step.data}
    state, found, ends = dict(step.fresh), [], []
    for given in frames:
        results, state = call(data, state)
        found.append(state["frame"])
        ends.append(results["end"])
        state["frame"] = given.unsqueeze(0)
    return torch.cat(found), torch.cat(ends)


def refined(step: PostnetStep, frames: Tensor, call: Call, known: int = 0) -> Tensor:
    """Return the refined frames (T, n F) of frames (T, n F).

    Args:
        step: the post-net.
        frames: of all steps. What follows them is noise.
        call: runs the step.
        known: steps after those of a call when their number becomes known, at the latest; the least is 0.
    """
    count, state, taken, found = len(frames), dict(step.fresh), 0, []
    frames = torch.cat((frames, torch.randn(step.delay + step.chunk, frames.shape[1]).to(frames)))
    while taken < count + step.delay:
        length = count if taken + step.chunk + known >= count else UNKNOWN
        data: Mapping[str, Tensor] = {"frames": frames[taken : taken + step.chunk], "length": torch.tensor([length])}
        results, state = call(data, state)
        found.append(results["features"])
        taken += step.chunk
    return torch.cat(found)[step.delay :][:count]
