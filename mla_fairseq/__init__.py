"""Modular linearized attention for speech translation in fairseq.

``fairseq-train --user-dir mla_fairseq`` imports this package, and so registers its task and models. Without fairseq,
``mla_fairseq.attention`` works alone.
"""

import importlib.util

__version__ = "0.2.0"

if importlib.util.find_spec("fairseq") is not None:
    import logging

    # fairseq's text-to-speech task, imported with all others, asks for a package that nothing here uses
    logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

    from mla_fairseq import checkpoints  # noqa: F401  lets fairseq load its own checkpoints without running code
    from mla_fairseq.criterions import latency_augmented, length_aware, tacotron2_length  # noqa: F401  registers them
    from mla_fairseq.models import (  # noqa: F401  registers them
        convtransformer_simul_mla,
        s2t_transformer_mla,
        tts_transformer_mla,
    )
    from mla_fairseq.models.help import show_attention_flags
    from mla_fairseq.tasks import speech_to_text_mla, text_to_speech_mla  # noqa: F401  registers them

    show_attention_flags()
