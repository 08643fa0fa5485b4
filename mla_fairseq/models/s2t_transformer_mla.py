"""``s2t_transformer_mla``: fairseq's speech-to-text Transformer with attention as a replaceable part."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any, ClassVar

from fairseq.models import register_model, register_model_architecture
from fairseq.models.speech_to_text import convtransformer
from fairseq.models.speech_to_text import s2t_transformer as stock
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from mla_fairseq.attention import Full
from mla_fairseq.models.checks import MLAModel, load_encoder, resumed
from mla_fairseq.models.ctc import add_ctc_args, source_symbols
from mla_fairseq.models.decoder import TextDecoder
from mla_fairseq.models.encoder import SpeechEncoder
from mla_fairseq.models.length_options import add_length_args
from mla_fairseq.models.options import add_attention_args
from mla_fairseq.models.simul import add_chunk_args
from mla_fairseq.models.target_language import check_trained


@register_model("s2t_transformer_mla")
class S2TTransformerMLAModel(MLAModel, stock.S2TTransformerModel):
    """Speech to text with any mechanism at each of the three attention sites.

    With softmax everywhere it equals ``s2t_transformer`` and, as ``convtransformer_mla``, ``convtransformer``:
    outputs are the same, and checkpoints of those models load if only the architecture is changed:
    ``fairseq-generate --model-overrides "{'_name': 's2t_transformer_mla'}"``.
    """

    encoder_type: ClassVar[type[SpeechEncoder]] = SpeechEncoder

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the stock flags, and those of attention, chunks, lengths and CTC."""
        stock.S2TTransformerModel.add_args(parser)
        add_attention_args(parser)
        add_chunk_args(parser)
        add_length_args(parser)
        add_ctc_args(parser)

    @classmethod
    def build_model(cls, args: Namespace, task: FairseqTask) -> S2TTransformerMLAModel:
        """Build a model for a task.

        Raises:
            ValueError: options that make no model, data with target-language tags for a model without them, or data
                without the characters of transcripts for CTC.
        """
        if getattr(task.args, "path", None) or resumed(args):  # the checkpoint has the encoder; its file may be gone
            args.load_pretrained_encoder_from = None
        tags = bool(task.data_cfg.prepend_tgt_lang_tag)
        check_trained(getattr(args, "prepend_tgt_lang_tag", None), tags)
        # saved in checkpoints
        args.prepend_tgt_lang_tag, args.ctc_symbols = tags, source_symbols(args, task)
        return super().build_model(args, task)

    @classmethod
    def build_encoder(cls, args: Namespace) -> SpeechEncoder:
        """Build the encoder, initialised from ``--load-pretrained-encoder-from`` if that is given."""
        encoder = cls.encoder_type(args)
        path = getattr(args, "load_pretrained_encoder_from", None)
        if path is not None:
            load_encoder(encoder, path)
            args.load_pretrained_encoder_from = None  # the saved checkpoint does not need that file
        return encoder

    @classmethod
    def build_decoder(cls, args: Namespace, task: FairseqTask, embed_tokens: nn.Embedding) -> TextDecoder:
        """Build the decoder for the task's target dictionary."""
        return TextDecoder(args, task.target_dictionary, embed_tokens)

    def forward(
        self, src_tokens: Tensor, src_lengths: Tensor, prev_output_tokens: Tensor, **for_decoder: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return scores (B, T, V) of every next token, and extras.

        Args:
            src_tokens: frames (B, N, F).
            src_lengths: (B,), in frames.
            prev_output_tokens: (B, T), the target shifted right.
            for_decoder: what asks for a decoding in a batch, as ``--score-reference`` gives it; see the encoder.
        """
        encoder_out = self.encoder(src_tokens, src_lengths, **for_decoder)
        return self.decoder(prev_output_tokens, encoder_out)

    def check_lagging(self, lagging: int) -> None:
        """Check that the model can decode with ``lagging``, the k of wait-k.

        Raises:
            ValueError: an offline model, a full-context encoder, or k below 1.
        """
        if self.decoder.wait_k is None:
            raise ValueError("this is an offline model, which has no wait-k policy to decode with")
        if self.encoder.view == Full():
            raise ValueError("this is a full-context encoder, so wait-k would depend on audio that has not arrived yet")
        if lagging < 1:
            raise ValueError(f"k of wait-k must be at least 1, but is {lagging}")


def tiny(args: Namespace) -> None:
    """Set a size that trains in minutes on two cores: 128 channels, 6 + 3 layers."""
    args.conv_channels = getattr(args, "conv_channels", 256)
    args.encoder_embed_dim = getattr(args, "encoder_embed_dim", 128)
    args.encoder_ffn_embed_dim = getattr(args, "encoder_ffn_embed_dim", 512)
    args.dropout = getattr(args, "dropout", 0.1)
    stock.s2t_transformer_xs(args)


ARCHITECTURES = {
    "s2t_transformer_mla": stock.base_architecture,
    "s2t_transformer_mla_tiny": tiny,
    "s2t_transformer_mla_xs": stock.s2t_transformer_xs,
    "s2t_transformer_mla_s": stock.s2t_transformer_s,
    "s2t_transformer_mla_sp": stock.s2t_transformer_sp,
    "s2t_transformer_mla_m": stock.s2t_transformer_m,
    "s2t_transformer_mla_mp": stock.s2t_transformer_mp,
    "s2t_transformer_mla_l": stock.s2t_transformer_l,
    "s2t_transformer_mla_lp": stock.s2t_transformer_lp,
}
for arch, size in ARCHITECTURES.items():
    register_model_architecture("s2t_transformer_mla", arch)(size)


@register_model_architecture("s2t_transformer_mla", "convtransformer_mla")
def convtransformer_base(args: Namespace) -> None:
    """Set the subsampler and the defaults of fairseq's ``convtransformer``, such as norms after each block."""
    convtransformer.base_architecture(args)
    args.conv_version = "convtransformer"  # set always: the flag of the stock model has a default that would win
    stock.base_architecture(args)


@register_model_architecture("s2t_transformer_mla", "convtransformer_mla_espnet")
def convtransformer_espnet(args: Namespace) -> None:
    """Set the size of fairseq's ``convtransformer_espnet``: 256 channels, 12 + 6 layers."""
    convtransformer.convtransformer_espnet(args)
    convtransformer_base(args)
