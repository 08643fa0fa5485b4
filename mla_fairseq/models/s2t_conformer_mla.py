"""``s2t_conformer_mla`` and ``s2t_conformer_simul_mla``: speech to text with a Conformer encoder.

All but the encoder is that of ``s2t_transformer_mla`` and ``s2t_transformer_simul_mla``.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from fairseq.models import register_model, register_model_architecture
from fairseq.models.speech_to_text import s2t_conformer as stock

from mla_fairseq.models.conformer import ConformerEncoder, add_conformer_args, set_conformer_defaults
from mla_fairseq.models.convtransformer_simul_mla import S2TTransformerSimulMLAModel
from mla_fairseq.models.s2t_transformer_mla import S2TTransformerMLAModel
from mla_fairseq.models.simul import set_simul_defaults


@register_model("s2t_conformer_mla")
class S2TConformerMLAModel(S2TTransformerMLAModel):
    """Speech to text with a Conformer encoder and any mechanism at each of the three attention sites.

    With softmax everywhere, ``--conformer-block-norm`` and ``--conformer-conv-norm batch`` it equals fairseq's
    ``s2t_conformer``, whose checkpoints load if only the architecture is changed:
    ``fairseq-generate --model-overrides "{'_name': 's2t_conformer_mla'}"``.
    """

    encoder_type = ConformerEncoder

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of the model with a Transformer encoder, and those of the Conformer."""
        S2TTransformerMLAModel.add_args(parser)
        add_conformer_args(parser)


@register_model("s2t_conformer_simul_mla")
class S2TConformerSimulMLAModel(S2TTransformerSimulMLAModel):
    """Simultaneous speech to text with a chunked Conformer encoder."""

    encoder_type = ConformerEncoder

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of the simultaneous model with a Transformer encoder, and those of the Conformer."""
        S2TTransformerSimulMLAModel.add_args(parser)
        add_conformer_args(parser)


def base(args: Namespace) -> None:
    """Set the size of fairseq's ``s2t_conformer``: 256 channels, 16 + 6 layers."""
    set_conformer_defaults(args)
    stock.conformer_base_architecture(args)


def tiny(args: Namespace) -> None:
    """Set a size that trains in minutes on two cores, and as many parameters as ``s2t_transformer_mla_tiny`` has."""
    sizes = {
        "conv_channels": 256, "encoder_embed_dim": 128, "encoder_ffn_embed_dim": 156, "encoder_layers": 6,
        "decoder_ffn_embed_dim": 512, "decoder_layers": 3, "depthwise_conv_kernel_size": 15,
    }  # fmt: skip
    _set(args, sizes)
    small(args)


def small(args: Namespace) -> None:
    """Set the size of the field's small Conformers: 256 channels, 12 + 6 layers, 4 heads."""
    _set(args, {"encoder_layers": 12, "decoder_attention_heads": 4})
    base(args)


def medium(args: Namespace) -> None:
    """Set the size of the field's usual Conformers: 512 channels, 12 + 6 layers, 8 heads."""
    _set(args, {"encoder_embed_dim": 512, "encoder_attention_heads": 8, "encoder_layers": 12, "dropout": 0.15})
    base(args)


def _set(args: Namespace, sizes: Mapping[str, float]) -> None:
    for name, value in sizes.items():
        setattr(args, name, getattr(args, name, value))


SIZES = {"": base, "_tiny": tiny, "_s": small, "_m": medium}


def _register(suffix: str) -> None:
    """Register the offline and the simultaneous architecture of a size."""
    register_model_architecture("s2t_conformer_mla", f"s2t_conformer_mla{suffix}")(SIZES[suffix])

    def simultaneous(args: Namespace) -> None:
        set_simul_defaults(args)
        SIZES[suffix](args)

    register_model_architecture("s2t_conformer_simul_mla", f"s2t_conformer_simul_mla{suffix}")(simultaneous)


for suffix in SIZES:
    _register(suffix)
