"""The text decoder's network, and the steps of a session on it."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Mapping

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from mla_fairseq.attention import MonotonicMultiheadAttention, State
from mla_fairseq.models.decoding import ENTRY, Layouts, fresh_entry, run_layers, step_layouts, weights_over
from mla_fairseq.models.dropout import Dropout
from mla_fairseq.models.layers import DecoderLayer, Report, SinusoidalPositions, Weights, need_lengths
from mla_fairseq.models.length import LengthRule
from mla_fairseq.models.length_options import length_options, source_lengths
from mla_fairseq.models.simul import build_monotonic, build_wait_k, chunk_size


class StepDecoder(FairseqIncrementalDecoder):
    """The text decoder's network and its steps; parameters named as in ``s2t_transformer``.

    A step takes the tokens and the encoder states that the caller's state does not hold yet, and advances the state.

    Args:
        args: the model's options.
        dictionary: of target tokens.
        embed_tokens: embedding of target tokens.

    Attributes:
        prefix_size: number of forced tokens that each target begins with: 1, the tag of its language, in a multilingual
            model, or 0. They count neither in target lengths nor in the steps of wait-k.
    """

    def __init__(self, args: Namespace, dictionary: Dictionary, embed_tokens: nn.Embedding) -> None:
        super().__init__(dictionary)
        channels = args.decoder_embed_dim
        self.register_buffer("version", torch.Tensor([3]))  # an entry of fairseq's checkpoints
        self.padding_idx: int = dictionary.pad()
        self.prefix_size = int(getattr(args, "prepend_tgt_lang_tag", False))
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
        # a chunked encoder may be fed live audio, so the source's length may not be known even without a policy
        streaming = self.wait_k is not None or self.monotonic is not None or chunk_size(args) > 0
        self.length_rule = (
            LengthRule.build(args, length_options(args), streaming) if need_lengths(self.layers) else None
        )

    def step(self, tokens: Tensor, source: Tensor | None, state: State) -> Tensor:
        """Return scores (B, V) of the token after ``tokens`` (B, 1), and advance the state.

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
        probes: Mapping[int, Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return features (B, T, C) of ``tokens`` (B, T) over a whole source, and advance the state.

        The second value are the cross-attention weights (B, H, T, S) of each layer of ``probes``.

        Args:
            tokens: (B, T), tokens that the state does not hold yet.
            source: (S, B, C), the whole source, in the first call; ``None`` in later ones.
            state: the caller's state, ``{}`` at first.
            source_lengths: (B,), numbers of encoder states.
            target_lengths: (B,), what ``expect_length`` returned.
            probes: the ``keys`` (B, H, S, d) of a layer's cross-attention, by its index.
        """
        if ENTRY not in state:
            self._begin(state, source_lengths, target_lengths)
        weights = {layer: weights_over(keys) for layer, keys in (probes or {}).items()}
        x, reports = self._step(tokens, source, state, weights)
        return x, [reports[layer]["weights"] for layer in weights]

    def expect_length(
        self, source: Tensor, source_mask: Tensor | None, source_lengths: Tensor, true: Tensor | None = None
    ) -> Tensor | None:
        """Return the target tokens (B,) that decoding expects; ``None`` where no mechanism needs lengths.

        Args:
            source: encoder states (S, B, C).
            source_mask: (B, S), true for real states; ``None``: all are real.
            source_lengths: (B,), numbers of real states.
            true: (B,), lengths of the references, for the rule ``oracle``.

        Raises:
            ValueError: no length was measured, predicted or given.
        """
        rule = self.length_rule
        if rule is None:
            return None
        log_ratio = rule.predict(source, source_mask) if rule.options.target_length == "predicted" else None
        return rule(source_lengths, log_ratio, true)

    def feed(self, source: Tensor | None, state: State, final: bool, source_mask: Tensor | None = None) -> None:
        """Give the next encoder states (n, B, C) to monotonic heads.

        ``final``: these are the last ones; only then may ``source_mask`` (B, n) be false for padding.
        """
        for module in self.layers.modules():
            if isinstance(module, MonotonicMultiheadAttention):
                module.feed(source, state, final, source_mask)

    def attempt(self, tokens: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Try the token after ``tokens`` (B, 1) with the encoder states that monotonic heads were fed.

        Returns:
            Scores (B, V); how many encoder states the heads have read by then, (B,); and which streams need more, (B,).
            Unless the source has ended, the scores of these are not valid: the caller restores the state.

        Raises:
            ValueError: a model whose positions are measured against lengths that are not known yet.
        """
        self._begin_stream(tokens, state)
        x, reports = self._step(tokens, None, state)
        waiting = torch.stack([report["wait"] for report in reports]).any(0)
        return self.output_layer(x)[:, -1], states_read(reports), waiting

    def output_layer(self, features: Tensor) -> Tensor:
        """Return scores (B, T, V) of features (B, T, C)."""
        return self.output_projection(features)

    def _begin(self, state: State, source_lengths: Tensor, target_lengths: Tensor | None) -> None:
        """Add the decoder's entry to a fresh state; lengths are (B,)."""
        expected = None if target_lengths is None else (target_lengths, self._source_lengths(source_lengths))
        state[ENTRY] = fresh_entry(source_lengths, expected)

    def _begin_stream(self, tokens: Tensor, state: State) -> None:
        """Add the decoder's entry to a fresh state of streams that have not ended: lengths are fixed numbers."""
        if ENTRY not in state:
            # fixed lengths depend on no numbers of states: these only give the number of streams
            unknown = torch.ones(len(tokens), dtype=torch.long, device=tokens.device)
            self._begin(state, unknown, None if self.length_rule is None else self.length_rule(unknown))

    def _step(
        self,
        tokens: Tensor,
        source: Tensor | None,
        state: State,
        weights: Mapping[int, Weights] | None = None,
        source_mask: Tensor | None = None,
    ) -> tuple[Tensor, list[Report]]:
        """Return features (B, T, C) of the next tokens (B, T) and the layers' reports, and advance the state."""
        new = 0 if source is None else len(source)
        x = self._embed(tokens, state[ENTRY]["position"])
        layouts, state[ENTRY] = step_layouts(state[ENTRY], tokens.shape[1], new, source_mask)
        return self._run_layers(x, source, layouts, state, weights or {})

    def _run_layers(
        self, x: Tensor, source: Tensor | None, layouts: Layouts, state: State | None, weights: Mapping[int, Weights]
    ) -> tuple[Tensor, list[Report]]:
        """Return features (B, T, C) of embedded tokens (T, B, C), and the layers' reports."""
        x, reports = run_layers(self.layers, x, source, layouts, state, weights)
        return (x if self.layer_norm is None else self.layer_norm(x)).transpose(0, 1), reports

    def _embed(self, tokens: Tensor, start: int | Tensor) -> Tensor:
        """Return embedded tokens (T, B, C) of tokens (B, T), the first of which are at ``start``, an int or (B,)."""
        x = self.embed_scale * self.embed_tokens(tokens).transpose(0, 1)  # (B, T) -> (T, B, C)
        x = x + self.embed_positions(start, x.shape[0], x.device).to(x)
        return self.dropout_module(x if self.layernorm_embedding is None else self.layernorm_embedding(x))

    def _source_lengths(self, true: Tensor) -> Tensor:
        """Return what source positions are measured against, (B,), from the true numbers of encoder states (B,)."""
        rule = self.length_rule
        return true if rule is None else source_lengths(rule.options, true, rule.streaming)


def states_read(reports: list[Report]) -> Tensor:
    """Return how many encoder states the slowest monotonic head of any layer has read, (B,)."""
    return torch.stack([report["seen"].amax(-1) for report in reports]).amax(0)
