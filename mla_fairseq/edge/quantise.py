"""Write graphs whose weights are 8-bit integers, a quarter of the size and about twice as fast.

Matrices are quantised once, with one scale each; the rows that they are multiplied with, in every call.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

PRODUCTS = ("MatMul", "Gemm", "Gather")  # Gather: the rows of an embedding


def quantise(source: Path, target: Path) -> None:
    """Write the graph of the file ``source`` with 8-bit weights to the file ``target``."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it recommends a preparation that static shapes do not need
    try:
        quantize_dynamic(
            source, target, op_types_to_quantize=list(PRODUCTS), weight_type=QuantType.QInt8,
            # 7 of the 8 bits: x86 without VNNI adds pairs of 8-bit products in 16 bits, where larger ones saturate
            reduce_range=True,
            extra_options={"MatMulConstBOnly": True},  # memories are no weights
        )  # fmt: skip
    finally:
        logging.disable(level)
    model = onnx.load(str(target))
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in onnx.load(str(source)).metadata_props})
    tie_embedding(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def tie_embedding(graph: Any) -> None:
    """Let an embedding that is tied to the output projection be gathered from the projection's 8-bit matrix.

    The quantiser writes two copies: rows (V, C) for the embedding, and columns (C, V) for the projection.
    """
    from onnx import helper

    names = {tensor.name for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    for node in [node for node in graph.node if node.op_type == "DequantizeLinear"]:
        gather, base = producers.get(node.input[0]), node.input[1].removesuffix("_scale")
        columns = f"{base}_Transposed"
        if gather is None or gather.op_type != "Gather" or f"{columns}_quantized" not in names:
            continue
        row = f"{node.output[0]}_column"
        gather.input[0], gather.output[0] = f"{columns}_quantized", row
        del gather.attribute[:]
        gather.attribute.append(helper.make_attribute("axis", 1))
        turned = helper.make_node("Transpose", [row], [f"{row}_turned"])
        node.input[:] = [f"{row}_turned", f"{columns}_scale", f"{columns}_zero_point"]
        graph.node.insert(list(graph.node).index(node), turned)
    drop_unused(graph)


def drop_unused(graph: Any) -> None:
    """Remove the weights that no node uses."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
