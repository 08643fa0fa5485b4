"""Run exported models with numpy and onnxruntime alone.

``EdgeTranslator.load`` (``mla_fairseq.edge.runtime.model``) reads a folder of ``mla-export``. The sessions are those of
``mla_fairseq.streaming``, whose modules import no torch.
"""
