"""Steps: pure functions of named tensors, whose inputs and outputs have static shapes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.runtime.names import NEW, NEXT, SLOT


class Step(nn.Module, ABC):
    """One call of a part of a model: data and state in, results and the next state out.

    A step owns no state, and its graph has no branch: how much of its input is real is a number.

    Some state is a ring (B, H, slots, D). A graph returns only its new rows (B, H, n, D), and the caller writes them
    into slots ``slot``, ``slot`` + 1 and so on, after the last one the first: copying whole rings would take longer
    than a small model's products.

    Attributes:
        data: an example of each input that is not state.
        fresh: the state of a fresh stream, zeros.
        results: names of the outputs that are not state.
        rings: names of the state that is a ring of rows.
        reads_rings: whether rings are inputs of the graph; otherwise it only writes them.
        folded: whether what depends on no input is computed by the export, rather than when a graph is loaded.
    """

    folded: ClassVar[bool] = True
    reads_rings: ClassVar[bool] = True

    data: Tensors
    fresh: Tensors
    results: tuple[str, ...]
    rings: tuple[str, ...] = ()

    @abstractmethod
    def compute(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        """Return the results, with ``place``, and the next state; of rings, the new rows."""

    def run(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        """Return the results and the next state."""
        results, new = self.compute(data, state)
        return results, write_rows(state, new, self.rings, results.pop(SLOT, None))

    def place(self, first: Tensor) -> Tensors:
        """Return the slot (1,) of row ``first`` (1,) of the stream, for the results of a step with rings."""
        return {SLOT: first % self.fresh[self.rings[0]].shape[2]} if self.rings else {}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return results and next state, in the order of ``outputs``; inputs are in the order of ``inputs``."""
        given = dict(zip(self.inputs, inputs, strict=True))
        data = {name: given.pop(name) for name in self.data}
        results, state = self.compute(data, given)
        found = results | {self._output(name): state[name] for name in self.fresh}
        return tuple(found[name] for name in self.outputs)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of all inputs: data, then state."""
        return (*self.data, *(name for name in self.fresh if self.reads_rings or name not in self.rings))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of all outputs: results, then the next state."""
        slot = (SLOT,) if self.rings else ()
        return (*self.results, *slot, *(self._output(name) for name in self.fresh))

    @property
    def example(self) -> tuple[Tensor, ...]:
        """Return example inputs, in the order of ``inputs``."""
        known = self.data | self.fresh
        return tuple(known[name] for name in self.inputs)

    def _output(self, name: str) -> str:
        """Return the output for a state."""
        return (NEW if name in self.rings else NEXT) + name


def write_rows(state: Mapping[str, Tensor], new: Tensors, rings: Collection[str], slot: Tensor | None) -> Tensors:
    """Return the next state, from what a graph returns of it: ``new`` rows of rings are written from ``slot`` on."""
    written = {}
    for name in rings:
        assert slot is not None
        slots = (slot + torch.arange(new[name].shape[2])) % state[name].shape[2]
        written[name] = state[name].index_copy(2, slots, new[name])
    return new | written


def prefixed(name: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Return tensors under the names ``name.KEY``."""
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def named(name: str, keys: Iterable[str]) -> tuple[str, ...]:
    """Return the names ``name.KEY``."""
    return tuple(f"{name}.{key}" for key in keys)


def part(name: str, state: Mapping[str, Tensor]) -> Tensors:
    """Return the tensors of a state whose names begin with ``name.``, without it."""
    start = f"{name}."
    return {key.removeprefix(start): tensor for key, tensor in state.items() if key.startswith(start)}


def number(value: int = 0) -> Tensor:
    """Return a number as a graph takes it, (1,) int64."""
    return torch.tensor([value])
