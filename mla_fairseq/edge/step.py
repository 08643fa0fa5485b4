"""What a step is: a pure function of named tensors, whose shapes never change."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mla_fairseq.attention.base import Tensors

NEXT = "next."  # an output with this prefix is the next value of the state of that name


class Step(nn.Module, ABC):
    """One call of a part of a model: data and state in, results and the next state out.

    A step owns no state, and its graph has no branch: how much of its input is real is a number.

    Attributes:
        data: an example of each input that is not state.
        fresh: the state of a fresh stream, zeros.
        results: names of the outputs that are not state.
        folded: whether what depends on no input is computed by the export, rather than when a graph is loaded.
    """

    folded: ClassVar[bool] = True

    data: Tensors
    fresh: Tensors
    results: tuple[str, ...]

    @abstractmethod
    def run(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        """Return the results and the next state."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return results and next state, in the order of ``outputs``; inputs are in the order of ``inputs``."""
        given = dict(zip(self.inputs, inputs, strict=True))
        results, state = self.run({name: given[name] for name in self.data}, {name: given[name] for name in self.fresh})
        return (*(results[name] for name in self.results), *(state[name] for name in self.fresh))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the names of all inputs: data, then state."""
        return (*self.data, *self.fresh)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of all outputs: results, then the next state."""
        return (*self.results, *(NEXT + name for name in self.fresh))

    @property
    def example(self) -> tuple[Tensor, ...]:
        """Return example inputs, in the order of ``inputs``."""
        return (*self.data.values(), *self.fresh.values())


def prefixed(name: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Return tensors under the names ``name.KEY``."""
    return {f"{name}.{key}": tensor for key, tensor in tensors.items()}


def part(name: str, state: Mapping[str, Tensor]) -> Tensors:
    """Return the tensors of a state whose names begin with ``name.``, without it."""
    start = f"{name}."
    return {key.removeprefix(start): tensor for key, tensor in state.items() if key.startswith(start)}


def number(value: int = 0) -> Tensor:
    """Return a number as a graph takes it, (1,) int64."""
    return torch.tensor([value])
