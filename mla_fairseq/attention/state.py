"""State is data that the caller owns: ``{module name: {tensor name: tensor}}``, fairseq's ``incremental_state``.

Dim 0 of every tensor is the stream (or beam), counters included. Modules replace tensors and never change them in
place, so a shallow copy is a snapshot and going back to it is exact. ``{}`` is a fresh stream.
"""

from __future__ import annotations

from torch import Tensor

State = dict[str, dict[str, Tensor]]


def fork(state: State) -> State:
    """Return a snapshot: later steps on either copy leave the other as it was. Copies no tensor."""
    return {name: dict(tensors) for name, tensors in state.items()}


def reorder(state: State, order: Tensor) -> None:
    """Put stream ``order[i]`` at place i, for every module: beams that were chosen, or streams that continue.

    ``order`` is (streams,), int64; streams may repeat or be left out.
    """
    for name, tensors in state.items():
        state[name] = {key: tensor.index_select(0, order.to(tensor.device)) for key, tensor in tensors.items()}


def nbytes(state: State) -> int:
    """Return the bytes that the tensors of a state hold."""
    return sum(tensor.nbytes for tensors in state.values() for tensor in tensors.values())
