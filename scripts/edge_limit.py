"""Compute the least time that exported graphs can take on a processor, by their products and the bytes they move."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from mla_fairseq.edge.export import OPSET
from mla_fairseq.edge.quantise import quantise
from mla_fairseq.edge.runtime.graph import TYPES, Graph
from mla_fairseq.edge.runtime.names import NEW

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
    paths = {part: model / f"{part}.int8.onnx" for part in calls}
    graphs = {part: onnx.load(path if path.exists() else model / f"{part}.onnx").graph for part, path in paths.items()}
    outputs = [value.name for graph in graphs.values() for value in graph.output]
    rings = {name.removeprefix(NEW) for name in outputs if name.startswith(NEW)}
    cost = Cost()
    for part, number in calls.items():
        cost = cost.add(Cost(*products(exact / f"{part}.onnx"), *moved(graphs[part], rings)), number)
    return cost


def products(path: Path) -> tuple[float, float]:
    """Return the FLOP of a graph's products with weights, and of its other products, in the first call of a stream.

    Softmax attention multiplies more in later calls, with the keys of those before: the limit is a lower bound.
    """
    model = onnx.load(path)
    shapes, fixed, flop = product_shapes(model), fixed_names(model.graph), [0.0, 0.0]
    for node in model.graph.node:
        if node.op_type in PRODUCTS:
            left, right, result = (shapes[name] for name in (*node.input[:2], node.output[0]))
            flop[node.input[1] not in fixed] += 2 * math.prod(result) * inner(node, left, right)
    return flop[0], flop[1]


def product_shapes(model: onnx.ModelProto) -> dict[str, Sequence[int]]:
    """Return the shapes of what products take and give, by a call of the model with zeros.

    Shape inference does not know all: the number of filled slots is data.
    """
    graph, traced = model.graph, onnx.ModelProto()
    traced.CopyFrom(model)
    wanted = {name for node in graph.node if node.op_type in PRODUCTS for name in (*node.input, *node.output)}
    names = [name for node in graph.node for name in node.output if name in wanted]
    del traced.graph.output[:]
    traced.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(traced.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {value.name: np.zeros(value.shape, TYPES[value.type]) for value in session.get_inputs()}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found = zip(names, session.run(names, given), strict=True)
    return shapes | {name: array.shape for name, array in (*given.items(), *found)}


def inner(node: onnx.NodeProto, left: Sequence[int], right: Sequence[int]) -> int:
    """Return the number of multiplications for one number of the output."""
    if node.op_type == "Conv":
        return math.prod(right[1:])
    turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return left[0] if turned else left[-1]


def fixed_names(graph: onnx.GraphProto) -> set[str]:
    """Return the names of values that depend on no input."""
    fixed = {tensor.name for tensor in graph.initializer}
    for node in graph.node:  # in order
        if fixed.issuperset(node.input):
            fixed.update(node.output)
    return fixed


def moved(graph: onnx.GraphProto, rings: set[str]) -> tuple[int, int]:
    """Return the bytes of weights that a call reads, and of its inputs and outputs; of rings, only the new rows."""
    whole = {name for node in graph.node if node.op_type != "Gather" for name in node.input}  # of others, it takes rows
    weights = sum(numpy_helper.to_array(tensor).nbytes for tensor in graph.initializer if tensor.name in whole)
    values = [value.type.tensor_type for value in (*graph.input, *graph.output) if value.name not in rings]
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
