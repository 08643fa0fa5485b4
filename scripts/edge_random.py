"""Write a simultaneous model with random weights, as fairseq-train saves one, and the prepared data that it needs."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from mla_fairseq import plugin  # noqa: F401 -- registers the architectures
from mla_fairseq.checkpoints import write_checkpoint
from mla_fairseq.files import write_text
from mla_fairseq.speech.features import NUM_BINS

CONFIG = """vocab_filename: dict.txt
input_feat_per_channel: 80
transforms: {"*": [global_cmvn]}
global_cmvn: {stats_npz_path: gcmvn.npz}
bpe_tokenizer: {bpe: characters}
"""


def write_random(flags: str, vocabulary: int, seed: int, folder: Path) -> tuple[Path, Path]:
    """Return the checkpoint and the data folder of ``--arch`` followed by ``flags``; it never ends a sentence."""
    data = write_data(folder / "data", vocabulary)
    command = f"{data} --task speech_to_text_mla --config-yaml config_st.yaml --arch {flags}"
    args = options.parse_args_and_arch(options.get_training_parser(), shlex.split(command))
    config = convert_namespace_to_omegaconf(args)
    torch.manual_seed(seed)
    task = tasks.setup_task(config.task)
    model = task.build_model(config.model)
    with torch.no_grad():
        model.decoder.output_projection.weight[task.target_dictionary.eos()] = 0  # others score more than 0
    history = [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}]
    cfg = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    state = {"args": None, "cfg": cfg, "model": model.state_dict(), "optimizer_history": history}
    state |= {"task_state": {"symbols": task.target_dictionary.symbols}, "extra_state": {}}
    write_checkpoint(state, folder / "random.pt")
    return folder / "random.pt", data


def write_data(folder: Path, vocabulary: int) -> Path:
    """Write the prepared data of a corpus without utterances."""
    folder.mkdir(parents=True)
    symbols = "".join(f"\u2581w{i} 1\n" for i in range(vocabulary - 4))  # fairseq adds four symbols
    write_text(folder / "dict.txt", symbols)
    write_text(folder / "config_st.yaml", CONFIG)
    np.savez(folder / "gcmvn.npz", mean=np.full(NUM_BINS, 12, np.float32), std=np.full(NUM_BINS, 4, np.float32))
    return folder
