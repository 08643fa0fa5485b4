"""Text-to-speech models with random weights for the whistled voice, and exported folders of them."""

from pathlib import Path

import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from mla_fairseq import plugin  # noqa: F401 -- registers the architectures

SIZES = (
    "--encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 "
    "--encoder-transformer-layers 2 --decoder-transformer-layers 2 --encoder-attention-heads 2 "
    "--decoder-attention-heads 2 --prenet-dim 8 --postnet-conv-dim 8 --n-frames-per-step 4 --max-target-positions 300 "
    "--target-length-ratio 6 --criterion tacotron2"
)


def save_voice(data: Path, path: Path, flags: str = "") -> Path:
    """Save the checkpoint of a model that ends its utterances at several steps, and return its path."""
    command = (
        f"{data} --task text_to_speech_mla --criterion tacotron2 --arch tts_transformer_mla {SIZES} {flags}".split()
    )
    config = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), command))
    torch.manual_seed(1)
    model = tasks.setup_task(config.task).build_model(config.model)
    torch.nn.init.normal_(model.decoder.eos_proj.weight, std=1.0)
    torch.nn.init.constant_(model.decoder.eos_proj.bias, -5.0)
    model.decoder.pos_emb_alpha.data.fill_(3.0)
    cfg = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    history = [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}]
    state = {"args": None, "cfg": cfg, "model": model.state_dict(), "optimizer_history": history}
    checkpoint_utils.torch_persistent_save(state | {"task_state": {}, "extra_state": {}}, str(path))
    return path
