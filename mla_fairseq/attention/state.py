"""State is data that the caller owns: ``{module name: {tensor name: tensor}}``, fairseq's ``incremental_state``.

Dim 0 of every tensor is the stream (or the hypothesis of a beam), counters included. Modules replace tensors and never
change them in place, so a shallow copy is an exact snapshot. ``{}`` is the state of a fresh stream.
"""

import torch

State = dict[str, dict[str, torch.Tensor]]


def fork(state: State) -> State:
    """Return a snapshot: later steps on one copy do not change the other. No tensor is copied."""
    return {name: dict(tensors) for name, tensors in state.items()}


def reorder(state: State, order: torch.Tensor) -> None:
    """Move stream ``order[i]`` to place i in every module; ``order`` (streams,), int64, may repeat or omit streams."""
    order = order if isinstance(order, torch.Tensor) else torch.as_tensor(order)
    for name, tensors in state.items():
        state[name] = {key: tensor.index_select(0, order.to(tensor.device)) for key, tensor in tensors.items()}


def nbytes(state: State) -> int:
    """Return the size of all tensors of a state in bytes."""
    return sum(tensor.nbytes for tensors in state.values() for tensor in tensors.values())
