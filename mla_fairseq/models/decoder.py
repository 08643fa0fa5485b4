"""The text decoder: the whole target at once in training, one token per step with a state in decoding."""

from __future__ import annotations

import math
from argparse import Namespace

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from mla_fairseq.attention import Causal, Full, LengthOptions, State, reorder
from mla_fairseq.models.layers import DecoderLayer, SinusoidalPositions
from mla_fairseq.models.length import LengthRule
from mla_fairseq.models.options import mechanism_options

LENGTH_BUFFER = "length_rule.tokens_and_states"


class TextDecoder(FairseqIncrementalDecoder):
    """Target tokens (B, T) over encoder states to scores (B, T, V); parameters named as in ``s2t_transformer``.

    Where a mechanism has positions, the target length is the true one as long as the whole target is given, and the
    length rule's while decoding step by step.
    """

    def __init__(self, args: Namespace, dictionary: Dictionary, embed_tokens: nn.Embedding) -> None:
        super().__init__(dictionary)
        channels = args.decoder_embed_dim
        self.register_buffer("version", torch.Tensor([3]))
        self.padding_idx = embed_tokens.padding_idx
        self.max_target_positions = args.max_target_positions
        self.embed_tokens = embed_tokens
        self.embed_scale = 1.0 if args.no_scale_embedding else math.sqrt(channels)
        self.embed_positions = SinusoidalPositions(channels, self.padding_idx)
        self.layernorm_embedding = nn.LayerNorm(channels) if getattr(args, "layernorm_embedding", False) else None
        self.dropout_module = nn.Dropout(args.dropout)
        self.layers = nn.ModuleList(DecoderLayer(args, f"decoder.layers.{i}") for i in range(args.decoder_layers))
        self.layer_norm = nn.LayerNorm(channels) if args.decoder_normalize_before else None
        self.output_projection = nn.Linear(channels, len(dictionary), bias=False)
        if args.share_decoder_input_output_embed:
            self.output_projection.weight = embed_tokens.weight
        else:
            nn.init.normal_(self.output_projection.weight, std=channels**-0.5)
        self.length_rule = LengthRule(_length_options(args)) if self._needs_lengths() else None

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict,
        incremental_state: State | None = None,
        features_only: bool = False,
        full_context_alignment: bool = False,
        alignment_layer: int | None = None,
        target_lengths: Tensor | None = None,
        **unused,
    ) -> tuple[Tensor, dict]:
        """Scores (B, T, V) of every next token, and extras.

        Args:
            prev_output_tokens: (B, T), the target shifted right. With a state, only the last one is new.
            encoder_out: what the encoder returned.
            incremental_state: the caller's state, ``{}`` at first.
            features_only: leave out the projection to the vocabulary.
            full_context_alignment: let every token see every other.
            alignment_layer: return this layer's cross-attention weights, (B, T, S), averaged over heads, as
                ``extra["attn"][0]``; they are computed only when a layer is named.
            target_lengths: (B,), the expected lengths, where the caller knows better than the length rule.
        """
        source, source_mask, source_lengths = _source(encoder_out)
        start = 0 if incremental_state is None else prev_output_tokens.shape[1] - 1
        tokens = prev_output_tokens[:, start:]
        target_mask = tokens.ne(self.padding_idx)
        if target_lengths is None:
            target_lengths = self._target_lengths(target_mask, source_lengths, incremental_state)
        x = self._embed(tokens, start)
        weights = None
        for i, layer in enumerate(self.layers):
            x, layer_weights = layer(
                x,
                source,
                source_mask,
                target_lengths,
                source_lengths,
                incremental_state,
                self_view=Full() if full_context_alignment else Causal(),
                target_mask=None if bool(target_mask.all()) else target_mask,
                need_weights=i == alignment_layer,
            )
            weights = layer_weights if layer_weights is not None else weights
        x = (x if self.layer_norm is None else self.layer_norm(x)).transpose(0, 1)
        extra = {"attn": [None if weights is None else weights.mean(1)]}
        if incremental_state is None:
            extra["encoder_out"] = encoder_out
        return x if features_only else self.output_layer(x), extra

    def output_layer(self, features: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, V)"""
        return self.output_projection(features)

    def max_positions(self) -> int:
        """fairseq's bound on target length; positions themselves have none."""
        return self.max_target_positions

    def reorder_incremental_state_scripting(self, incremental_state: State, new_order: Tensor) -> None:
        """fairseq's beam search chose: one pass over the state serves every mechanism."""
        reorder(incremental_state, new_order)

    def upgrade_state_dict_named(self, state_dict: dict, name: str) -> dict:
        """Let checkpoints cross between mechanisms: what only one of two mechanisms has is not the projections'."""
        key = f"{name}.{LENGTH_BUFFER}"
        if self.length_rule is None:
            state_dict.pop(key, None)
        else:
            state_dict.setdefault(key, self.length_rule.tokens_and_states.clone())
        return state_dict

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        """(B, T) -> (T, B, C)"""
        x = self.embed_scale * self.embed_tokens(tokens).transpose(0, 1)
        x = x + self.embed_positions(start, x.shape[0], x.device).to(x)
        return self.dropout_module(x if self.layernorm_embedding is None else self.layernorm_embedding(x))

    def _target_lengths(self, mask: Tensor, source_lengths: Tensor, state: State | None) -> Tensor | None:
        if self.length_rule is None:
            return None
        if state is not None:
            return self.length_rule(source_lengths)
        lengths = mask.sum(1)
        if self.training:
            self.length_rule.observe(lengths, source_lengths)
        return lengths

    def _needs_lengths(self) -> bool:
        return any(a.mechanism.needs_lengths for layer in self.layers for a in (layer.self_attn, layer.encoder_attn))


def _length_options(args: Namespace) -> LengthOptions:
    """The length flags are cosFormer's; a mechanism of one's own that has positions shares them."""
    return mechanism_options(args, "cosformer")


def _source(encoder_out: dict) -> tuple[Tensor, Tensor | None, Tensor]:
    """Encoder states (S, B, C), real states (B, S) or ``None`` for all, and their numbers (B,)."""
    states = encoder_out["encoder_out"][0]
    if encoder_out["encoder_padding_mask"]:
        mask = ~encoder_out["encoder_padding_mask"][0]
        return states, mask, mask.sum(1)
    return states, None, torch.full((states.shape[1],), states.shape[0], device=states.device)
