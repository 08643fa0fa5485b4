"""Models for simultaneous translation: a chunked encoder, and a decoder with a read/write policy.

``convtransformer_simul_mla`` subsamples with 2-d convolutions, like the ConvTransformer of fairseq and ESPnet;
``s2t_transformer_simul_mla`` with gated 1-d convolutions, like ``s2t_transformer``. All else is equal.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from fairseq.models import register_model, register_model_architecture
from fairseq.models.speech_to_text import s2t_transformer as stock
from fairseq.registry import REGISTRIES

from mla_fairseq.models.s2t_transformer_mla import S2TTransformerMLAModel, tiny
from mla_fairseq.models.simul import SIMUL_TYPES, add_simul_args, set_simul_defaults


@register_model("s2t_transformer_simul_mla")
class S2TTransformerSimulMLAModel(S2TTransformerMLAModel):
    """Simultaneous speech to text with any mechanism at each attention site.

    With wait-k, target t sees ``min(S, ratio (k + t))`` encoder states, in training as in decoding, and no encoder
    state depends on audio after its chunk. ``fairseq-generate`` decodes with the whole source; with
    ``--task speech_to_text_mla --simul-waitk-lagging K`` it decodes as the agent does.
    """

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of the offline model, and those of the read/write policy."""
        S2TTransformerMLAModel.add_args(parser)
        add_simul_args(parser)


@register_model("convtransformer_simul_mla")
class ConvTransformerSimulMLAModel(S2TTransformerSimulMLAModel):
    """``s2t_transformer_simul_mla`` with the subsampler of the ConvTransformer."""


def espnet(args: Namespace) -> None:
    """Set the size of fairseq's ``convtransformer_espnet``: 256 channels, 12 + 6 layers."""
    args.encoder_embed_dim = getattr(args, "encoder_embed_dim", 256)
    args.encoder_attention_heads = getattr(args, "encoder_attention_heads", 4)
    args.decoder_attention_heads = getattr(args, "decoder_attention_heads", 4)
    stock.base_architecture(args)


def tiny_convolutions(args: Namespace) -> None:
    """Set ``tiny``, with few channels in the 2-d convolutions, which are applied at each of 40 frequencies."""
    args.conv_out_channels = getattr(args, "conv_out_channels", 32)
    tiny(args)


def share_simul_type() -> None:
    """Let ``--simul-type`` of fairseq's example, where that is installed, take the names of this package too."""
    if "simul_type" in REGISTRIES:
        for simul_type in SIMUL_TYPES:
            REGISTRIES["simul_type"]["registry"].setdefault(simul_type, None)


SIZES = {
    "": stock.base_architecture,
    "_tiny": tiny,
    "_xs": stock.s2t_transformer_xs,
    "_s": stock.s2t_transformer_s,
    "_m": stock.s2t_transformer_m,
    "_espnet": espnet,
}


def _register(model: str, conv_version: str, name: str, size: Callable[[Namespace], None]) -> None:
    """Register an architecture of a model under ``name``; ``size`` sets its sizes."""

    def architecture(args: Namespace) -> None:
        args.conv_version = conv_version  # set always: the flag of the stock model has a default that would win
        set_simul_defaults(args)
        size(args)

    architecture.__name__ = name  # a name for tracebacks
    register_model_architecture(model, name)(architecture)


for suffix, size in SIZES.items():
    _register("s2t_transformer_simul_mla", "s2t_transformer", f"s2t_transformer_simul_mla{suffix}", size)
    size = tiny_convolutions if size is tiny else size
    _register("convtransformer_simul_mla", "convtransformer", f"convtransformer_simul_mla{suffix}", size)
share_simul_type()
