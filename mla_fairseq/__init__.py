"""Modular linearized attention for speech translation in fairseq.

``fairseq-train --user-dir mla_fairseq`` imports this package, and so registers its task and models. Without fairseq,
``mla_fairseq.attention`` works alone.
"""

import importlib.util

__version__ = "0.1.0"

if importlib.util.find_spec("fairseq") is not None:
    import argparse
    import logging

    import torch

    # fairseq saves its options as a Namespace: with this one class known, its checkpoints load without running code
    torch.serialization.add_safe_globals([argparse.Namespace])
    # fairseq's text-to-speech task, imported with all others, asks for a package that nothing here uses
    logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

    from mla_fairseq.models import s2t_transformer_mla  # noqa: F401  registers its models
    from mla_fairseq.tasks import speech_to_text_mla  # noqa: F401  registers its task
