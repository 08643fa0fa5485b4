"""The text decoder: the whole target at once in training, one token per step with a state in decoding."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import replace

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from mla_fairseq.attention import AttentionHeads, Causal, Full, Layout, Prefix, State, View, positions, reorder
from mla_fairseq.models.dropout import Dropout
from mla_fairseq.models.layers import DecoderLayer, SinusoidalPositions, Weights, need_lengths
from mla_fairseq.models.length import LengthRule, adapt_length_rule
from mla_fairseq.models.length_options import length_options, source_lengths
from mla_fairseq.models.simul import build_monotonic, build_wait_k, chunk_size

CAUSAL, FULL = Causal(), Full()

OWN = "decoder"
"""The decoder's own entry in a state: the position of the next token and of the next source state, and the lengths."""


class TextDecoder(FairseqIncrementalDecoder):
    """Target tokens (B, T) over encoder states to scores (B, T, V); parameters named as in ``s2t_transformer``.

    Where a mechanism has positions, the target length is the true one as long as the whole target is given, and the
    length rule's in decoding step by step, fixed by the first step; in a simultaneous model always the rule's.

    With wait-k, training draws a k for each batch; evaluation and decoding use the one that the batch asks for
    (``waitk_lagging`` in its ``net_input``; ``None``: the whole source), by default the middle of the range. With
    monotonic attention the heads decide: in expectation over a whole target, and one by one with a state, over the
    source that ``feed`` gave.
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

        With monotonic attention and a state, ``extra["attn"][0]`` (B, 1, 1) is, in place of weights, the number of
        encoder states that the heads have read: fairseq's generator keeps it with each hypothesis.

        With monotonic attention ``extra["delays"]`` (B, layers * H, T) are the encoder states that each head is
        expected to have read, of ``extra["source_lengths"]`` (B,). With a length predictor
        ``extra["length_log_ratio"]`` (B,) is the logarithm of the target tokens per encoder state that it expects.
        """
        if incremental_state is not None:
            x, notes = self._decode(prev_output_tokens, encoder_out, incremental_state, alignment_layer, target_lengths)
            extra = {}
        else:
            view = FULL if full_context_alignment else CAUSAL
            x, notes, extra = self._whole(prev_output_tokens, encoder_out, view, alignment_layer, target_lengths)
        weights = next((note["weights"] for note in notes if "weights" in note), None)
        extra["attn"] = [None if weights is None else weights.mean(1)]
        if self.monotonic and incremental_state is not None and weights is None:
            extra["attn"] = [states_read(notes).to(x)[:, None, None]]
        return x if features_only else self.output_layer(x), extra

    def _whole(
        self, tokens: Tensor, encoder_out: dict, view: View, alignment_layer: int | None, target_lengths: Tensor | None
    ) -> tuple[Tensor, list[dict[str, Tensor]], dict]:
        """Return features (B, T, C) of a whole target, what the layers report, and extras."""
        source, source_mask, true_lengths = source_of(encoder_out)
        mask, log_ratio, rule = tokens.ne(self.padding_idx), None, self.length_rule
        if target_lengths is None and rule is not None:
            log_ratio = rule.predict(source, source_mask)
            target_lengths = rule.of_whole_target(mask.sum(1), true_lengths, log_ratio)
        target_mask = None if bool(mask.all()) else mask
        device, length = source.device, tokens.shape[1]
        self_layout = Layout.whole(
            view, length, query_length=target_lengths, key_length=target_lengths, key_mask=target_mask, device=device
        )
        cross_layout = Layout.whole(
            self._cross_view(length, source, encoder_out), length, len(source), query_length=target_lengths,
            key_length=self._source_lengths(true_lengths), key_mask=source_mask, device=device,
        )  # fmt: skip
        layers = {} if alignment_layer is None else {alignment_layer: whole_weights}
        x, notes = self._run_layers(self._embed(tokens, 0), source, self_layout, cross_layout, None, layers)
        extra = {"encoder_out": encoder_out}
        if log_ratio is not None:
            extra |= {"length_log_ratio": log_ratio, "source_lengths": true_lengths}
        if self.monotonic:
            extra |= {"delays": torch.cat([note["delays"] for note in notes], dim=1), "source_lengths": true_lengths}
        return x, notes, extra

    def _decode(
        self, prev_output_tokens: Tensor, encoder_out: dict, state: State, alignment_layer: int | None,
        target_lengths: Tensor | None,
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:  # fmt: skip
        """Return features (B, 1, C) of the last of these tokens, and what the layers report."""
        source, mask, true_lengths = source_of(encoder_out)
        if OWN not in state:
            if target_lengths is None:
                asked = encoder_out.get("for_decoder", {}).get("target_lengths")
                target_lengths = self.expect_length(source, mask, true_lengths, asked)
            self._begin(state, true_lengths, target_lengths)
        source, mask = self._unread(encoder_out, source, mask, prev_output_tokens.shape[1] - 1)
        if self.monotonic and source is not None:
            self.feed(source, state, True, mask)
        layers = {} if alignment_layer is None else {alignment_layer: whole_weights}
        return self._step(prev_output_tokens[:, -1:], source, state, layers, mask)

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

    def _begin(self, state: State, source_lengths: Tensor, target_lengths: Tensor | None) -> None:
        """Open a state: lengths are fixed before the first key is written, because angles are part of the sums."""
        zeros = torch.zeros_like(source_lengths)
        state[OWN] = {"position": zeros, "source_position": zeros}
        if target_lengths is not None:
            state[OWN] |= {"target_length": target_lengths, "source_length": self._source_lengths(source_lengths)}

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
        own, length, new = state[OWN], tokens.shape[1], 0 if source is None else len(source)
        position, target, read = own["position"], own.get("target_length"), own["source_position"]
        self_layout = Layout.at(CAUSAL, position, length, query_length=target, key_length=target)
        cross_layout = Layout.at(
            FULL, position, length, new, read, query_length=target, key_length=own.get("source_length"),
            key_mask=source_mask,
        )  # fmt: skip
        state[OWN] = own | {"position": position + length, "source_position": read + new}
        return self._run_layers(self._embed(tokens, position), source, self_layout, cross_layout, state, weights or {})

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

    def _run_layers(
        self,
        x: Tensor,
        source: Tensor | None,
        self_layout: Layout,
        cross_layout: Layout,
        state: State | None,
        weights: dict[int, Weights],
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Embedded tokens (T, B, C) to features (B, T, C), and what each layer reports; weights by layer."""
        notes = []
        for i, layer in enumerate(self.layers):
            x, note = layer(x, source, self_layout, cross_layout, state, weights.get(i))
            notes.append(note)
        return (x if self.layer_norm is None else self.layer_norm(x)).transpose(0, 1), notes

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
        adapt_length_rule(state_dict, f"{name}.length_rule.", self.length_rule)
        if self.monotonic:
            self._start_deciding(state_dict, name)
        return state_dict

    def _start_deciding(self, state_dict: dict, name: str) -> None:
        """A model without monotonic attention initialises one with: its heads decide by what they attend by."""
        for i, layer in enumerate(self.layers):
            prefix = f"{name}.layers.{i}.encoder_attn."
            for side in ("q_proj", "k_proj"):
                for part in ("weight", "bias"):
                    if (known := state_dict.get(f"{prefix}{side}.{part}")) is not None:
                        state_dict.setdefault(f"{prefix}{side}_mono.{part}", known.clone())
            if (bias := layer.encoder_attn.energy_bias) is not None:
                state_dict.setdefault(f"{prefix}energy_bias", bias.detach().clone())

    def _embed(self, tokens: Tensor, start: int | Tensor) -> Tensor:
        """(B, T) -> (T, B, C)"""
        x = self.embed_scale * self.embed_tokens(tokens).transpose(0, 1)
        x = x + self.embed_positions(start, x.shape[0], x.device).to(x)
        return self.dropout_module(x if self.layernorm_embedding is None else self.layernorm_embedding(x))

    def _lagging(self, encoder_out: dict) -> int | None:
        """Return the k of this batch; ``None``: the whole source is available."""
        if self.wait_k is None:
            return None
        return (
            self.wait_k.draw()
            if self.training
            else encoder_out.get("for_decoder", {}).get("waitk_lagging", self.wait_k.middle)
        )

    def _cross_view(self, targets: int, source: Tensor, encoder_out: dict) -> View:
        """Return which encoder states each target of a whole sequence sees."""
        lagging = self._lagging(encoder_out)
        if lagging is None:
            return FULL
        read = self.wait_k.states(lagging, torch.arange(targets, device=source.device))
        return Prefix(read.clamp_max(source.shape[0]))

    def _unread(
        self, encoder_out: dict, source: Tensor, mask: Tensor | None, target: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the encoder states that target ``target`` (from 0) sees and the one before did not."""
        lagging, first = self._lagging(encoder_out), 0
        last = len(source) if lagging is None else self.wait_k.states(lagging, target)
        if target:
            first = len(source) if lagging is None else self.wait_k.states(lagging, target - 1)
        new = source[first:last]
        return (new, None if mask is None else mask[:, first:last]) if len(new) else (None, None)

    def _source_lengths(self, true: Tensor) -> Tensor:
        rule = self.length_rule
        return true if rule is None else source_lengths(rule.options, true, rule.streaming)


def states_read(notes: list[dict[str, Tensor]]) -> Tensor:
    """Return how many encoder states the slowest head of any layer has read, (B,)."""
    return torch.stack([note["seen"].amax(-1) for note in notes]).amax(0)


def source_of(encoder_out: dict) -> tuple[Tensor, Tensor | None, Tensor]:
    """Encoder states (S, B, C), real states (B, S) or ``None`` for all, and their numbers (B,)."""
    states = encoder_out["encoder_out"][0]
    if encoder_out["encoder_padding_mask"]:
        mask = ~encoder_out["encoder_padding_mask"][0]
        return states, mask, mask.sum(1)
    return states, None, torch.full((states.shape[1],), states.shape[0], device=states.device)


def whole_weights(attention: AttentionHeads, queries: Tensor, source: Tensor | None, layout: Layout) -> Tensor:
    """Return weights (B, H, T, S) of queries over the source that the layer is given."""
    return attention.weights(queries, source, layout)


def weights_over(keys: Tensor, mask: Tensor | None = None) -> Weights:
    """Return a function for weights over ``keys`` (B, H, S, d) of the whole source, real ones (B, S)."""

    def weights(attention: AttentionHeads, queries: Tensor, source: Tensor | None, layout: Layout) -> Tensor:
        places = positions(0, keys.shape[2], keys.device)
        return attention.weights_from_keys(queries, keys, replace(layout, keys=places, key_mask=mask))

    return weights
