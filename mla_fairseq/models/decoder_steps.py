"""The text decoder's network, and the steps of a session on it."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from mla_fairseq.attention import State
from mla_fairseq.models.decoding import OWN, Layouts, fresh_entry, run_layers, step_layouts, weights_over
from mla_fairseq.models.dropout import Dropout
from mla_fairseq.models.layers import DecoderLayer, SinusoidalPositions, Weights, need_lengths
from mla_fairseq.models.length import LengthRule
from mla_fairseq.models.length_options import length_options, source_lengths
from mla_fairseq.models.simul import build_monotonic, build_wait_k, chunk_size


class StepDecoder(FairseqIncrementalDecoder):
    """The text decoder's network and its steps; parameters named as in ``s2t_transformer``.

    A step takes the tokens and the encoder states that a state does not hold yet, and advances the state.
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
        self.dropout_module = Dropout(args.dropout)
        self.layers = nn.ModuleList(DecoderLayer(args, f"decoder.layers.{i}") for i in range(args.decoder_layers))
        self.layer_norm = nn.LayerNorm(channels) if args.decoder_normalize_before else None
        self.output_projection = nn.Linear(channels, len(dictionary), bias=False)
        if args.share_decoder_input_output_embed:
            self.output_projection.weight = embed_tokens.weight
        else:
            nn.init.normal_(self.output_projection.weight, std=channels**-0.5)
        self.wait_k = build_wait_k(args)
        self.monotonic = build_monotonic(args)
        streaming = self.wait_k is not None or self.monotonic is not None or chunk_size(args) > 0
        self.length_rule = (
            LengthRule.build(args, length_options(args), streaming) if need_lengths(self.layers) else None
        )

    def step(self, tokens: Tensor, source: Tensor | None, state: State) -> Tensor:
        """Return scores (B, V) of the token after ``tokens`` (B, 1); the state advances.

        ``source`` (n, B, C) are encoder states that the state does not hold yet; ``None``: no new ones.

        Raises:
            ValueError: a model whose positions are measured against lengths that are not known yet.
        """
        self._begin_stream(tokens, state)
        return self.output_layer(self._step(tokens, source, state)[0])[:, -1]

    def step_over(
        self,
        tokens: Tensor,
        source: Tensor | None,
        state: State,
        source_lengths: Tensor,
        target_lengths: Tensor | None,
        probe: tuple[int, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``step``, of tokens (B, T), over a whole source of ``source_lengths`` (B,) states, given at first.

        ``target_lengths`` (B,) are what ``expect_length`` returns. With ``probe``, a layer and the ``keys`` of its
        cross-attention, also the weights (B, H, S) there.
        """
        if OWN not in state:
            self._begin(state, source_lengths, target_lengths)
        layers = {} if probe is None else {probe[0]: weights_over(probe[1])}
        x, notes = self._step(tokens, source, state, layers)
        return self.output_layer(x)[:, -1], None if probe is None else notes[probe[0]]["weights"][:, :, -1]

    def expect_length(
        self, source: Tensor, source_mask: Tensor | None, source_lengths: Tensor, true: Tensor | None = None
    ) -> Tensor | None:
        """Return the target tokens (B,) that decoding expects for a source (S, B, C), real states (B, S), numbers (B,).

        ``true`` (B,) are the reference's, for an oracle; ``None`` is returned where no mechanism needs lengths.

        Raises:
            ValueError: nothing was measured, predicted or given.
        """
        rule = self.length_rule
        if rule is None:
            return None
        log_ratio = rule.predict(source, source_mask) if rule.options.target_length == "predicted" else None
        return rule(source_lengths, log_ratio, true)

    def feed(self, source: Tensor | None, state: State, final: bool, source_mask: Tensor | None = None) -> None:
        """Give monotonic heads the next encoder states (n, B, C); ``final``: the last ones, maybe with padding."""
        for layer in self.layers:
            layer.encoder_attn.feed(source, state, final, source_mask)

    def attempt(self, tokens: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Try the token after ``tokens`` (B, 1) on what monotonic heads were fed.

        Returns scores (B, V), how many encoder states the heads have read by then, (B,), and which streams wait for
        more, (B,): unless the source has ended, the scores are not valid, and the caller restores the state.

        Raises:
            ValueError: a model whose positions are measured against lengths that are not known yet.
        """
        self._begin_stream(tokens, state)
        x, notes = self._step(tokens, None, state)
        return self.output_layer(x)[:, -1], states_read(notes), torch.stack([note["wait"] for note in notes]).any(0)

    def output_layer(self, features: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, V)"""
        return self.output_projection(features)

    def _begin(self, state: State, source_lengths: Tensor, target_lengths: Tensor | None) -> None:
        """Open a state."""
        known = target_lengths is not None
        expected = (target_lengths, self._source_lengths(source_lengths)) if known else None
        state[OWN] = fresh_entry(source_lengths, expected)

    def _begin_stream(self, tokens: Tensor, state: State) -> None:
        """Open the state of streams that have not ended, if it is new: their lengths are fixed numbers."""
        if OWN not in state:
            unknown = torch.ones(len(tokens), dtype=torch.long, device=tokens.device)
            self._begin(state, unknown, None if self.length_rule is None else self.length_rule(unknown))

    def _step(
        self,
        tokens: Tensor,
        source: Tensor | None,
        state: State,
        weights: dict[int, Weights] | None = None,
        source_mask: Tensor | None = None,
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Return features (B, T, C) of the next tokens (B, T), and what the layers report; the state advances."""
        new = 0 if source is None else len(source)
        x = self._embed(tokens, state[OWN]["position"])
        layouts, state[OWN] = step_layouts(state[OWN], tokens.shape[1], new, source_mask)
        return self._run_layers(x, source, layouts, state, weights or {})

    def _run_layers(
        self, x: Tensor, source: Tensor | None, layouts: Layouts, state: State | None, weights: Mapping[int, Weights]
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Embedded tokens (T, B, C) to features (B, T, C), and what each layer reports; weights by layer."""
        x, notes = run_layers(self.layers, x, source, layouts, state, weights)
        return (x if self.layer_norm is None else self.layer_norm(x)).transpose(0, 1), notes

    def _embed(self, tokens: Tensor, start: int | Tensor) -> Tensor:
        """(B, T) -> (T, B, C)"""
        x = self.embed_scale * self.embed_tokens(tokens).transpose(0, 1)
        x = x + self.embed_positions(start, x.shape[0], x.device).to(x)
        return self.dropout_module(x if self.layernorm_embedding is None else self.layernorm_embedding(x))

    def _source_lengths(self, true: Tensor) -> Tensor:
        rule = self.length_rule
        return true if rule is None else source_lengths(rule.options, true, rule.streaming)


def states_read(notes: list[dict[str, Tensor]]) -> Tensor:
    """Return how many encoder states the slowest head of any layer has read, (B,)."""
    return torch.stack([note["seen"].amax(-1) for note in notes]).amax(0)
