"""Register models, criterions and tasks with fairseq, when this module is imported.

``fairseq-train --user-dir mla_fairseq`` imports it. A Python program does so by ``from mla_fairseq import plugin``.
"""

from mla_fairseq import checkpoints  # noqa: F401 -- lets fairseq load its own checkpoints without running code
from mla_fairseq.criterions import optional_terms, tacotron2_length  # noqa: F401 -- registers them
from mla_fairseq.models import (  # noqa: F401 -- registers them
    convtransformer_simul_mla,
    loading,
    s2t_conformer_mla,
    s2t_transformer_mla,
    tts_transformer_mla,
)
from mla_fairseq.models.distributed import check_devices, distribute_on_cpus
from mla_fairseq.models.help import show_attention_flags
from mla_fairseq.tasks import speech_to_text_mla, text_to_speech_mla  # noqa: F401 -- registers them
from mla_fairseq.tasks.ending import end_quietly
from mla_fairseq.tasks.resuming import save_whole_checkpoints, start_clearly
from mla_fairseq.tasks.transcripts import print_transcripts

show_attention_flags()
save_whole_checkpoints()
loading.install()
start_clearly()
end_quietly()
print_transcripts()
check_devices()
distribute_on_cpus()
