"""fairseq's architectures whose checkpoints load as models of this package, and their options under its names."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_NAME_REGISTRY
from fairseq.models.speech_to_text import convtransformer

SIMUL_TRANS = "convtransformer_simul_trans"
OURS = {
    "s2t_transformer": "s2t_transformer_mla",
    "convtransformer": "s2t_transformer_mla",
    "s2t_conformer": "s2t_conformer_mla",
    SIMUL_TRANS: "convtransformer_simul_mla",
    "tts_transformer": "tts_transformer_mla",
}
"""fairseq's models, and the architecture of this package that computes the same with softmax attention."""
NOT_FOLLOWED = (
    "adaptive_input", "adaptive_softmax_cutoff", "cross_self_attention", "decoder_learned_pos", "no_cross_attention",
    "no_decoder_final_norm", "no_token_positional_embeddings",
)  # fmt: skip
"""Options of fairseq's models that change their output, but not that of the models here."""


def stock_model(name: str) -> str | None:
    """Return the fairseq model of the architecture ``name`` if it is one of ``OURS``, else ``None``."""
    if name in (SIMUL_TRANS, f"{SIMUL_TRANS}_espnet"):  # registered only where fairseq's examples are installed
        return SIMUL_TRANS
    model = ARCH_MODEL_NAME_REGISTRY.get(name)
    return model if model in OURS else None


def as_ours(name: str) -> dict[str, Any]:
    """Return the override that loads the architecture ``name`` as a model of this package; empty if it is none."""
    model = stock_model(name)
    return {} if model is None else {"_name": OURS[model]}


def adopt(options: Namespace, name: str) -> None:
    """Change the options of a checkpoint of fairseq's architecture ``name``, so that a model here computes the same.

    Raises:
        ValueError: an option that the models here do not follow.
    """
    for option in NOT_FOLLOWED:
        if getattr(options, option, None):
            raise ValueError(
                f"the checkpoint has an option that is not supported here ({option}={getattr(options, option)!r}): "
                f"load it as {name}"
            )
    model = stock_model(name)
    # the defaults of the stock model where the checkpoint has no value: the others are those of another model
    ARCH_CONFIG_REGISTRY.get(name, convtransformer.convtransformer_espnet)(options)
    if model == "s2t_conformer":
        _adopt_conformer(options, name)
    if model in ("convtransformer", SIMUL_TRANS):
        convtransformer.base_architecture(options)
        options.conv_version, options.input_channels = "convtransformer", 1
        options.no_encoder_final_norm = True  # fairseq creates this norm and never applies it
    if model == SIMUL_TRANS:
        options.encoder_chunk_size = 0  # its encoder is bidirectional
        options.noise_var = (getattr(options, "noise_var", None) or 0) ** 2  # there it is the standard deviation


def _adopt_conformer(options: Namespace, name: str) -> None:
    """Change the options of fairseq's ``s2t_conformer``, whose attention types are implementations of softmax."""
    if options.attn_type != "espnet":
        options.pos_enc_type = "abs" if options.pos_enc_type != "rope" else "rope"
    if options.pos_enc_type not in ("abs", "rel_pos"):
        raise ValueError(
            f"the checkpoint has positions that are not supported here (pos_enc_type={options.pos_enc_type!r}): load "
            f"it as {name}"
        )
    options.attn_type, options.conformer_block_norm, options.conformer_conv_norm = "softmax", True, "batch"
