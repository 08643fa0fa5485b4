"""The encoder of text to speech: symbols (characters or phonemes), convolutions, and layers under the full view."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from mla_fairseq.attention import Full, Layout
from mla_fairseq.models.dropout import Dropout
from mla_fairseq.models.layers import EncoderLayer, SinusoidalPositions
from mla_fairseq.models.length_options import length_options, source_lengths
from mla_fairseq.models.options import site_type
from mla_fairseq.models.simul import check_encoder_view

FULL = Full()


class TextEncoder(FairseqEncoder):
    """Encode symbols (B, S) to states (S, B, C); parameters named as in ``tts_transformer``.

    Padding is set to zero before every convolution, so a text in a batch gives the same states as alone. In fairseq's
    encoder padding leaks into the text.

    Args:
        args: the model's options.
        dictionary: of characters or phonemes.
        embed_speaker: embedding of speakers, if the data name them.

    Raises:
        ValueError: a mechanism that cannot follow the full view, or a convolution of even width.
    """

    def __init__(self, args: Namespace, dictionary: Dictionary, embed_speaker: nn.Embedding | None = None) -> None:
        super().__init__(dictionary)
        channels, width = args.encoder_embed_dim, args.encoder_conv_kernel_size
        if width % 2 == 0:
            raise ValueError(f"--encoder-conv-kernel-size must be odd, but is {width}")
        self.padding_idx = dictionary.pad()
        self.embed_speaker = embed_speaker
        with_speaker = channels + args.speaker_embed_dim
        self.spk_emb_proj = None if embed_speaker is None else nn.Linear(with_speaker, channels)
        self.embed_tokens = nn.Embedding(len(dictionary), channels, self.padding_idx)
        convolutions = [
            nn.Conv1d(channels, channels, width, padding=width // 2) for _ in range(args.encoder_conv_layers)
        ]
        self.prenet = nn.ModuleList(
            nn.Sequential(convolution, nn.BatchNorm1d(channels), nn.ReLU(), Dropout(args.encoder_dropout))
            for convolution in convolutions
        )
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight, nn.init.calculate_gain("relu"))
        self.prenet_proj = nn.Linear(channels, channels)
        self.embed_positions = SinusoidalPositions(channels, self.padding_idx)
        self.pos_emb_alpha = nn.Parameter(torch.ones(1))
        self.dropout_module = Dropout(args.dropout)
        layers = [EncoderLayer(args, f"encoder.transformer_layers.{i}") for i in range(args.encoder_transformer_layers)]
        self.transformer_layers = nn.ModuleList(layers)
        self.layer_norm = nn.LayerNorm(channels) if args.encoder_normalize_before else None
        mechanism = layers[0].self_attn.mechanism
        check_encoder_view(FULL, mechanism, site_type(args, "encoder"))
        self.lengths = length_options(args) if mechanism.needs_lengths else None

    def forward(
        self, src_tokens: Tensor, src_lengths: Tensor | None = None, speaker: Tensor | None = None, **unused: Any
    ) -> dict[str, Any]:
        """Return fairseq's encoder output: states (S, B, C) and padding (B, S).

        Args:
            src_tokens: symbols (B, S), padded on the right.
            src_lengths: not used: the padding symbol marks padding.
            speaker: (B, 1), speakers, in a model that has more than one.
        """
        real = src_tokens.ne(self.padding_idx)
        key_mask = None if bool(real.all()) else real  # without padding no layer needs to mask
        x, layout = self._embed(src_tokens, real), self.layout(real, key_mask)
        for layer in self.transformer_layers:
            x = layer(x, layout)
        x = self._finish(x, speaker)
        return {
            "encoder_out": [x],
            "encoder_padding_mask": [] if key_mask is None else [~real],
            "encoder_embedding": [],
            "encoder_states": [],
            "src_tokens": [],
            "src_lengths": [],
        }

    def layout(self, real: Tensor, key_mask: Tensor | None) -> Layout:
        """Return the layout of the layers, for texts whose symbols are ``real`` (B, S).

        Positions are measured against the true numbers of symbols, or against ``--source-length``. ``key_mask`` is
        ``real``, or ``None`` without padding.
        """
        expected = None if self.lengths is None else source_lengths(self.lengths, real.sum(1))
        return Layout.at(
            FULL, 0, real.shape[1], query_length=expected, key_length=expected, key_mask=key_mask, device=real.device
        )

    def _finish(self, x: Tensor, speaker: Tensor | None) -> Tensor:
        """Return encoder states (S, B, C) from the output of the last layer; ``speaker`` is (B, 1)."""
        if self.layer_norm is not None:
            x = self.layer_norm(x)
        if self.embed_speaker is None:
            return x
        embedded = self.embed_speaker(speaker).transpose(0, 1).expand(len(x), -1, -1)  # (B, 1, C') -> (S, B, C')
        assert self.spk_emb_proj is not None, "it comes with the embedding of speakers"
        return self.spk_emb_proj(torch.cat((x, embedded), dim=2))

    def _embed(self, tokens: Tensor, real: Tensor) -> Tensor:
        """Return embedded symbols (S, B, C) of symbols (B, S); ``real`` (B, S) is false for padding."""
        x = self.embed_tokens(tokens).transpose(1, 2)  # (B, S) -> (B, C, S)
        for convolution in self.prenet:
            x = convolution(x * real.unsqueeze(1))
        x = self.prenet_proj(x.permute(2, 0, 1))  # (B, C, S) -> (S, B, C)
        return self.dropout_module(x + self.pos_emb_alpha * self.embed_positions(0, len(x), x.device).to(x))

    def reorder_encoder_out(self, encoder_out: dict[str, Any], new_order: Tensor) -> dict[str, Any]:
        """Return the encoder's output with stream ``new_order[i]`` at place i."""
        return encoder_out | {
            "encoder_out": [x.index_select(1, new_order) for x in encoder_out["encoder_out"]],
            "encoder_padding_mask": [x.index_select(0, new_order) for x in encoder_out["encoder_padding_mask"]],
        }
