"""Write steps as ONNX graphs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mla_fairseq.edge.step import Step
from mla_fairseq.errors import needs

OPSET = 17


def check_installed() -> None:
    """Check that the packages of the extra ``export`` are installed.

    Raises:
        UserError: one is missing.
    """
    with needs("export"):
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401


def export(step: Step, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a step as a graph with the step's names of inputs and outputs, all shapes static.

    torch's first exporter is used: it takes seconds, where the second one takes ten times as long, and both write the
    same products. What it does not support (branches, growing shapes) a step does not have.
    """
    import onnx

    with torch.no_grad(), _quiet():
        torch.onnx.register_custom_op_symbolic("aten::mT", _transposed, OPSET)
        torch.onnx.register_custom_op_symbolic("aten::expm1", _less_one, OPSET)
        torch.onnx.export(
            step.eval(), step.example, str(path), input_names=list(step.inputs), output_names=list(step.outputs),
            opset_version=OPSET, dynamo=False, do_constant_folding=step.folded,
        )  # fmt: skip
        shapes = {name: tensor.shape for name, tensor in zip(step.outputs, step(*step.example), strict=True)}
    if step.folded:
        optimise(path)
    model = onnx.load(str(path))
    for output in model.graph.output:  # the exporter knows most of them only
        for dim, size in zip(output.type.tensor_type.shape.dim, shapes[output.name], strict=True):
            dim.dim_value = size
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def optimise(path: Path) -> None:
    """Remove nodes that only prepare constants, a third of what the exporter writes; nothing of one processor."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(path))
    used = [entry for entry in model.opset_import if entry.domain in {node.domain for node in model.graph.node}]
    del model.opset_import[:]
    model.opset_import.extend(used)
    onnx.save(model, str(path))


def _transposed(graph: Any, x: Any) -> Any:
    """Return the node of ``x.mT``, which the exporter does not know."""
    order = list(range(x.type().dim()))
    order[-2:] = order[:-3:-1]
    return graph.op("Transpose", x, perm_i=order)


def _less_one(graph: Any, x: Any) -> Any:
    """Return the nodes of ``x.expm1()``, which the exporter does not know."""
    return graph.op("Sub", graph.op("Exp", x), graph.op("Constant", value_t=torch.ones(())))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter warns of: that it is the older one, and that shapes become constants, as they must."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(level)
