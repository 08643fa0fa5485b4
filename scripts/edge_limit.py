"""Compute the least time that exported graphs can take on a processor, by their products and the bytes they move."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference

from mla_fairseq.edge.export import OPSET
from mla_fairseq.edge.quantise import quantise
from mla_fairseq.edge.runtime.graph import Graph

PRODUCTS = ("MatMul", "Gemm", "Conv")
ROWS, INNER, COLUMNS = 512, 1024, 1024  # of the product by which peaks are measured


@dataclass(frozen=True)
class Cost:
    """What a call of a graph takes.

    Attributes:
        flop: of products and convolutions with weights, which 8-bit graphs do in 8 bits.
        others: FLOP of products of two inputs.
        weights: bytes, each read once.
        states: bytes of inputs and outputs; most of them are states.
    """

    flop: float = 0.0
    others: float = 0.0
    weights: float = 0.0
    states: float = 0.0

    def add(self, other: Cost, calls: float) -> Cost:
        """Return this cost and that of ``calls`` other calls."""
        return Cost(*(mine + calls * theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Peaks:
    """What one thread can do: FLOP per second in float32 and in 8 bits, and bytes read per second."""

    float32: float
    int8: float
    reading: float

    def __or__(self, other: Peaks) -> Peaks:
        """Return the higher ones."""
        return Peaks(*map(max, astuple(self), astuple(other)))

    def limit(self, cost: Cost, precision: str) -> float:
        """Return the least seconds: products and reading can overlap."""
        products = cost.flop / getattr(self, precision) + cost.others / self.float32
        return max(products, (cost.weights + cost.states) / self.reading)


def segment_cost(calls: Mapping[str, float], exact: Path, model: Path) -> Cost:
    """Return the cost of a segment.

    Args:
        calls: calls of each graph in a segment.
        exact: folder of the float32 graphs, whose products are counted: those of 8 bits are the same.
        model: folder of the graphs whose bytes are counted.
    """
    cost = Cost()
    for part, number in calls.items():
        path = model / f"{part}.int8.onnx"
        bytes_moved = moved(path if path.exists() else model / f"{part}.onnx")
        cost = cost.add(Cost(*products(exact / f"{part}.onnx"), *bytes_moved), number)
    return cost


def products(path: Path) -> tuple[float, float]:
    """Return the FLOP of a graph's products with weights, and of its other products.

    Those of softmax attention whose size grows with the number of keys are not counted: the limit is a lower bound.

    Raises:
        SystemExit: the size of a product with a weight is not known.
    """
    graph = shape_inference.infer_shapes(onnx.load(path), data_prop=True).graph
    shapes, fixed, flop = known_shapes(graph), fixed_names(graph), [0.0, 0.0]
    for node in graph.node:
        if node.op_type in PRODUCTS:
            sizes, weight = (
                [shapes.get(name, [0]) for name in (*node.input[:2], node.output[0])],
                node.input[1] in fixed,
            )
            if weight and not all(map(all, sizes)):
                raise SystemExit(f"error: {path}: the product {node.name} has no static shape: export the model again")
            flop[not weight] += 2 * math.prod(sizes[2]) * inner(node, *sizes[:2])
    return flop[0], flop[1]


def inner(node: onnx.NodeProto, left: list[int], right: list[int]) -> int:
    """Return the number of multiplications for one number of the output."""
    if node.op_type == "Conv":
        return math.prod(right[1:])
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return left[0] if turned else left[-1]


def known_shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Return the shape of each value; 0 where a size is not known."""
    values = (*graph.input, *graph.output, *graph.value_info)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}
    return shapes | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def fixed_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of values that depend on no input."""
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # in order
        if fixed.issuperset(node.input):
            fixed.update(node.output)
    return fixed


def moved(path: Path) -> tuple[int, int]:
    """Return the bytes of weights that a call reads, and of its inputs and outputs."""
    graph = onnx.load(path).graph
    whole = {name for node in graph.node if node.op_type != "Gather" for name in node.input}  # of others, it takes rows
    weights = sum(numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer if tensor.name in whole)
    values = [value.type.tensor_type for value in (*graph.input, *graph.output)]
    sizes = [helper.tensor_dtype_to_np_dtype(value.elem_type).itemsize for value in values]
    shapes = [math.prod(dim.dim_value for dim in value.shape.dim) for value in values]
    return weights, sum(size * number for size, number in zip(sizes, shapes, strict=True))


def measure_peaks() -> Peaks:
    """Return what this thread does now: a large product by onnxruntime, in both precisions, and a sum of 256 MB."""
    work = 2 * ROWS * INNER * COLUMNS
    rows = {"x": np.random.default_rng(1).standard_normal((ROWS, INNER), np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        exact, int8 = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        write_product(exact)
        quantise(exact, int8)
        graphs = [Graph(path) for path in (exact, int8)]
    speeds = [work / fastest(partial(graph.run, rows, {})) for graph in graphs]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    memory = torch.ones(2**26)
    reading = memory.nbytes / fastest(memory.sum)
    torch.set_num_threads(threads)
    return Peaks(*speeds, reading)


def write_product(path: Path) -> None:
    """Write the graph of a product with a weight."""
    weight = np.random.default_rng(2).standard_normal((INNER, COLUMNS), np.float32)
    sizes = {"x": [ROWS, INNER], "y": [ROWS, COLUMNS]}
    given, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items())
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = helper.make_graph([node], "product", [given], [found], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9), path)


def fastest(run: Callable[[], object], repeats: int = 15) -> float:
    """Return the least CPU seconds of a call."""
    seconds = []
    for _ in range(repeats):
        begin = time.thread_time()
        run()
        seconds.append(time.thread_time() - begin)
    return min(seconds)
