"""Run steps, or their graphs, over a whole speech as a runtime does: for tests, and for the check of an export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.decoder import DecoderStep
from mla_fairseq.edge.encoder import EncoderStep
from mla_fairseq.edge.reader import ReaderStep
from mla_fairseq.edge.runtime.names import NEW, NEXT, SLOT, UNKNOWN
from mla_fairseq.edge.step import Step, write_rows

Call = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], tuple[Tensors, Tensors]]
"""Data and state of a step in, its results and the next state out: ``Step.run``, or ``graph_call``."""


def graph_call(path: Path) -> Call:
    """Return the call of the graph in a file, with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names, inputs = ([value.name for value in values] for values in (session.get_outputs(), session.get_inputs()))

    def call(data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        given = {**data, **state}
        values = session.run(names, {name: given[name].numpy() for name in inputs})
        found = {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}
        rows = [name for name in state if NEW + name in found]
        new = {name: found.pop((NEW if name in rows else NEXT) + name) for name in state}
        slot = found.pop(SLOT, None)
        return found, write_rows(state, new, rows, slot)

    return call


def encode(step: EncoderStep, frames: Tensor, call: Call, known: int = 0, more: int = 0) -> Iterator[Tensors]:
    """Yield the results of the calls for a speech (T, F), with the states before its first one.

    Args:
        step: the encoder.
        frames: of the whole speech. What the encoder must not use is noise.
        call: runs the step.
        known: states after those of a call when the end becomes known, at the latest; the least is 0.
        more: states after the last one to ask for, as a boundary output needs them.
    """
    ratio, state, first = step.frames_per_state, dict(step.fresh), -step.lead
    noise = torch.randn(step.padding + 2 * step.window + ratio * more, frames.shape[1]).to(frames)
    frames, length = torch.cat((noise[: step.padding], frames, noise[step.padding :])), len(frames)
    while ratio * first < length + ratio * more:
        ended = ratio * (first + step.chunk + known) + step.ahead >= length
        data = {"frames": frames[: step.window].unsqueeze(0), "length": torch.tensor([length if ended else UNKNOWN])}
        results, state = call(data, state)
        yield results
        frames, first = frames[step.window :], first + step.chunk


def encoded(step: EncoderStep, frames: Tensor, call: Call) -> Tensor:
    """Return the encoder states (S, C) of a speech (T, F)."""
    states = torch.cat([results["states"] for results in encode(step, frames, call)])
    return states[step.lead :][: -(-len(frames) // step.frames_per_state)]


def boundaries(step: EncoderStep, frames: Tensor, call: Call) -> Tensor:
    """Return the boundary output (S, 2) of the states of a speech (T, F)."""
    boundary = step.encoder.boundary
    assert boundary is not None
    found = torch.cat([results["boundary"] for results in encode(step, frames, call, more=boundary.ahead)])
    return found[step.lead + boundary.ahead :][: -(-len(frames) // step.frames_per_state)]


def read(step: ReaderStep, states: Tensor, state: Tensors, call: Call) -> Tensors:
    """Return the state of a reader after these encoder states (n, C)."""
    for new in states.split(step.chunk):
        padded = F.pad(new, (0, 0, 0, step.chunk - len(new)), value=7.0)  # what does not count must not be read
        _, state = call({"states": padded, "count": torch.tensor([len(new)])}, state)
    return state


def decode(step: DecoderStep, tokens: Tensor, memories: Tensors, state: Tensors, call: Call) -> tuple[Tensor, Tensors]:
    """Return the scores (B, V) after these tokens (B,), and the next state; ``memories`` are a reader's state.

    Monotonic heads decode as after the end of the speech.
    """
    data = {"tokens": tokens, "ended": torch.tensor([1])} | memories
    results, state = call({name: data[name] for name in step.data}, state)
    return results["scores"], state


def checked(step: Step) -> Call:
    """Return the call of a step in PyTorch that checks the shapes and types of its state."""

    def kinds(state: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
        return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}

    def call(data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        results, state = step.run(data, state)
        assert kinds(state) == kinds(step.fresh)
        return results, state

    return call
