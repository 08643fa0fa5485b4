"""Modular linearized attention for speech translation in fairseq.

``fairseq-train --user-dir mla_fairseq`` imports this package, and so registers its models. Without fairseq,
``mla_fairseq.attention`` works alone.
"""

import argparse
import importlib
import importlib.util

__version__ = "0.1.0"

if importlib.util.find_spec("fairseq") is not None:
    import torch

    # fairseq saves its options as a Namespace: with this one class known, its checkpoints load without running code
    torch.serialization.add_safe_globals([argparse.Namespace])
    importlib.import_module("mla_fairseq.models.s2t_transformer_mla")
