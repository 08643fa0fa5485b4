"""A graph of an exported model: a pure function of named arrays, whose inputs and outputs have static shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mla_fairseq.edge.runtime.names import NEW, NEXT, SLOT
from mla_fairseq.edge.runtime.rows import Rows

Arrays = dict[str, NDArray]
State = dict[str, NDArray | Rows]
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
ERRORS_ONLY = 3  # of onnxruntime's levels


class Graph:
    """A graph in onnxruntime, on one thread of the processor.

    Args:
        path: the ONNX file.

    Attributes:
        inputs: names of all inputs.
        data: names of the inputs that are not state.
        rings: names of the state of which a call returns only new rows.
        shapes: shape of each input and output.

    Raises:
        ValueError: onnxruntime cannot read the file, or an input has no static shape.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # a step is too small to share
        options.log_severity_level = ERRORS_ONLY
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a type for each of its codes, and no common one
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} cannot be read by onnxruntime ({reason}): export the model again") from error
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        self.outputs = [output.name for output in outputs]
        self.shapes: dict[str, list[int]] = {value.name: value.shape for value in (*inputs, *outputs)}
        self.inputs = [value.name for value in inputs]
        self.rings = [name.removeprefix(NEW) for name in self.outputs if name.startswith(NEW)]
        changes = {name.removeprefix(NEXT) for name in self.outputs}.union(self.rings)
        self.data = [name for name in self.inputs if name not in changes]
        for value in inputs:
            if value.type not in TYPES or not all(isinstance(size, int) for size in value.shape):
                raise ValueError(f"{path}: the input {value.name} has no static shape: export the model again")
        kept = [value for value in inputs if value.name not in (*self.data, *self.rings)]
        self._fresh = {value.name: np.zeros(value.shape, TYPES[value.type]) for value in kept}

    def fresh(self, reader: Graph | None = None) -> State:
        """Return the state of a fresh stream: zeros. ``reader``: the graph that reads the rings of this one."""
        shapes = (reader or self).shapes
        return self._fresh | {name: Rows(np.zeros(shapes[name], np.float32)) for name in self.rings}

    def run(
        self, data: Mapping[str, NDArray | Rows], state: Mapping[str, NDArray | Rows]
    ) -> tuple[Arrays, State]:  # fmt: skip
        """Return the outputs that are not state, and the next state. The state given remains valid."""
        given = {**data, **state}
        values = self.session.run(None, {name: _array(given[name]) for name in self.inputs})
        outputs = dict(zip(self.outputs, values, strict=True))
        slot, new = outputs.pop(SLOT, None), State()
        for name, value in state.items():
            if isinstance(value, Rows):
                new[name] = value.write(outputs.pop(NEW + name), slot[0])
            else:
                new[name] = outputs.pop(NEXT + name)
        return outputs, new


def _array(value: NDArray | Rows) -> NDArray:
    return value.array if isinstance(value, Rows) else value


def nbytes(arrays: Mapping[str, NDArray | Rows]) -> int:
    """Return the size of all arrays in bytes."""
    return sum(array.nbytes for array in arrays.values())
