"""What a runtime does around the steps, over PyTorch or over graphs: windows, chunks, states."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mla_fairseq.edge.decoder import DecoderStep
from mla_fairseq.edge.encoder import UNKNOWN, EncoderStep
from mla_fairseq.edge.reader import ReaderStep
from mla_fairseq.edge.step import Step

Tensors = dict[str, Tensor]
Call = Callable[[Tensors, Tensors], tuple[Tensors, Tensors]]


def encode(step: EncoderStep, frames: Tensor, call: Call | None = None, extra: int = 0) -> Iterator[Tensors]:
    """Yield the results of the calls for a whole speech (T, F); its length is known once all of it has arrived.

    Frames that the step must not use are noise.
    """
    call, length = call or step.run, len(frames)
    noise = torch.randn(2 * step.window + step.padding + 4 * extra, frames.shape[1]).to(frames)
    padded = torch.cat((noise[: step.padding], frames, noise[step.padding :]))
    state, states = dict(step.fresh), -step.lead
    while 4 * states < length + 4 * extra:
        window, padded = padded[: step.window], padded[step.window :]
        arrived = 4 * states + step.window + step.ahead >= length
        results, state = call({"frames": window[None], "length": torch.tensor([length if arrived else UNKNOWN])}, state)
        check_shapes(step, state)
        states += step.chunk
        yield results


def states_of(step: EncoderStep, frames: Tensor, call: Call | None = None) -> Tensor:
    """Return the encoder states (S, C) of frames (T, F), if four frames are a state."""
    states = torch.cat([results["states"] for results in encode(step, frames, call)])
    return states[step.lead :][: -(-len(frames) // 4)]


def read(step: ReaderStep, states: Tensor, state: Tensors, call: Call | None = None) -> Tensors:
    """Return the state of a reader after these encoder states (n, C)."""
    while len(states):
        new, states = states[: step.chunk], states[step.chunk :]
        padded = F.pad(new, (0, 0, 0, step.chunk - len(new)), value=7.0)  # what is not counted is not read
        _, state = (call or step.run)({"states": padded, "count": torch.tensor([len(new)])}, state)
        check_shapes(step, state)
    return state


def decode(step: DecoderStep, tokens: Tensor, memories: Tensors, state: Tensors, call: Call | None = None):
    """Return the scores (B, V) after these tokens (B,), and the next state."""
    data = {name: memories[name] for name in step.data if name != "tokens"}
    results, state = (call or step.run)({"tokens": tokens} | data, state)
    check_shapes(step, state)
    return results["scores"], state


def check_shapes(step: Step, state: Tensors) -> None:
    assert {name: (x.shape, x.dtype) for name, x in state.items()} == {
        name: (x.shape, x.dtype) for name, x in step.fresh.items()
    }
