"""``tts_transformer_mla``: fairseq's autoregressive text-to-speech Transformer with replaceable attention."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from fairseq.models import register_model, register_model_architecture
from fairseq.models.text_to_speech import tts_transformer as stock
from fairseq.tasks import FairseqTask

from mla_fairseq.models.checks import MLAModel
from mla_fairseq.models.length_options import add_length_args
from mla_fairseq.models.options import add_attention_args
from mla_fairseq.models.speech_decoder import SpeechDecoder
from mla_fairseq.models.text_encoder import TextEncoder


@register_model("tts_transformer_mla")
class TTSTransformerMLAModel(MLAModel, stock.TTSTransformerModel):
    """Text to log-mel spectrogram (arXiv 1809.08895) with any mechanism at each of the three attention sites.

    With softmax everywhere it equals fairseq's ``tts_transformer``. It trains with ``--task text_to_speech`` or
    ``text_to_speech_mla``, and with ``--criterion tacotron2`` or, if it has a length predictor, ``tacotron2_mla``.
    """

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the stock flags, and those of attention and lengths."""
        stock.TTSTransformerModel.add_args(parser)
        add_attention_args(parser)
        add_length_args(parser)

    @classmethod
    def build_model(cls, args: Namespace, task: FairseqTask) -> TTSTransformerMLAModel:
        """Build a model for a task's symbols and speakers.

        Raises:
            ValueError: options that make no model.
        """
        if args.n_frames_per_step < 1:
            raise ValueError(f"--n-frames-per-step must be at least 1, but is {args.n_frames_per_step}")
        encoder = TextEncoder(args, task.src_dict, task.get_speaker_embeddings(args))
        return cls(encoder, SpeechDecoder(args, task.src_dict))


def tiny(args: Namespace) -> None:
    """Set a size that trains in minutes on two cores: 128 channels, 3 + 3 layers."""
    for name, value in {
        "encoder_embed_dim": 128,
        "encoder_ffn_embed_dim": 512,
        "encoder_transformer_layers": 3,
        "decoder_embed_dim": 128,
        "decoder_ffn_embed_dim": 512,
        "decoder_transformer_layers": 3,
        "prenet_dim": 128,
        "postnet_conv_dim": 128,
        "encoder_normalize_before": True,
        "decoder_normalize_before": True,
    }.items():
        setattr(args, name, getattr(args, name, None) or value)  # a switch that is not given is False, not missing
    stock.base_architecture(args)


register_model_architecture("tts_transformer_mla", "tts_transformer_mla")(stock.base_architecture)
register_model_architecture("tts_transformer_mla", "tts_transformer_mla_tiny")(tiny)
