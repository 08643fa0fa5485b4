"""Models that run without PyTorch: steps with static shapes, their export to ONNX, and a runtime.

This module imports nothing, so that ``mla_fairseq.edge.runtime`` needs neither torch nor fairseq.
"""
