"""A graph of an exported model: a pure function of named arrays whose shapes never change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Arrays = dict[str, NDArray]
NEXT = "next."  # an output with this prefix is the next value of the state of that name
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
ERRORS_ONLY = 3  # of onnxruntime's levels


class Graph:
    """A graph in onnxruntime, on one thread of the processor.

    Args:
        path: the ONNX file.

    Attributes:
        data: names of the inputs that are not state.
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
        self.data = [value.name for value in inputs if NEXT + value.name not in self.outputs]
        for value in inputs:
            if value.type not in TYPES or not all(isinstance(size, int) for size in value.shape):
                raise ValueError(f"{path}: the input {value.name} has no static shape: export the model again")
        self._fresh = {
            value.name: np.zeros(value.shape, TYPES[value.type]) for value in inputs if value.name not in self.data
        }

    def fresh(self) -> Arrays:
        """Return the state of a fresh stream: zeros."""
        return dict(self._fresh)

    def run(self, data: Mapping[str, NDArray], state: Mapping[str, NDArray]) -> tuple[Arrays, Arrays]:
        """Return the outputs that are not state, and the next state. The arrays given are not changed."""
        outputs = dict(zip(self.outputs, self.session.run(None, {**data, **state}), strict=True))
        new = {name: outputs.pop(NEXT + name) for name in state}
        return outputs, new


def nbytes(arrays: Mapping[str, NDArray]) -> int:
    """Return the size of all arrays in bytes."""
    return sum(array.nbytes for array in arrays.values())
