"""Models that run without PyTorch: steps with inputs and outputs of static shapes, their export to ONNX, a runtime.

This module imports nothing, so that ``mla_fairseq.edge.runtime`` needs neither torch nor fairseq.
"""
