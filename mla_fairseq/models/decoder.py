"""The text decoder: the whole target at once in training, one token per step with a state in decoding."""

from __future__ import annotations

import math
from argparse import Namespace

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from torch import Tensor, nn

from mla_fairseq.attention import Causal, Full, Prefix, State, View, reorder
from mla_fairseq.models.dropout import Dropout
from mla_fairseq.models.layers import DecoderLayer, SinusoidalPositions, need_lengths
from mla_fairseq.models.length import LengthRule, adapt_length_rule, length_options, source_lengths
from mla_fairseq.models.simul import build_monotonic, build_wait_k, chunk_size

CAUSAL, FULL = Causal(), Full()


class TextDecoder(FairseqIncrementalDecoder):
    """Target tokens (B, T) over encoder states to scores (B, T, V); parameters named as in ``s2t_transformer``.

    Where a mechanism has positions, the target length is the true one as long as the whole target is given, and the
    length rule's while decoding step by step; in a model that streams it is the rule's throughout.

    With wait-k, ``lagging`` is the k of evaluation and decoding (``None``: the whole source is there); training draws
    its own for each batch. With monotonic attention the heads decide: in expectation over a whole target, and one by
    one with a state, over the source that ``feed`` gave.
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
        self.lagging = None if self.wait_k is None else self.wait_k.middle
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

        With monotonic attention ``extra["delays"]`` (B, layers * H, T) are the encoder states that each head is
        expected to have read, of ``extra["source_lengths"]`` (B,). With a length predictor
        ``extra["length_log_ratio"]`` (B,) is the logarithm of the target tokens per encoder state that it expects.
        """
        source, source_mask, source_lengths = source_of(encoder_out)
        start = 0 if incremental_state is None else prev_output_tokens.shape[1] - 1
        tokens = prev_output_tokens[:, start:]
        mask = tokens.ne(self.padding_idx)
        log_ratio = None
        if target_lengths is None and self.length_rule is not None:
            if incremental_state is None:
                log_ratio = self.length_rule.predict(source, source_mask)
                target_lengths = self.length_rule.of_whole_target(mask.sum(1), source_lengths, log_ratio)
            elif not incremental_state or self.length_rule.streaming:  # else later steps keep what the first was told
                target_lengths = self.expect_length(source, source_mask, source_lengths)
        view, lengths = FULL, source_lengths
        if incremental_state is None:
            view = self._cross_view(tokens.shape[1], source)
        else:
            source, source_mask = self._unread(source, source_mask, start, incremental_state)
            if self.monotonic and source is not None:
                self.feed(source, incremental_state, True, source_mask)
        x, notes = self._run_layers(
            self._embed(tokens, start),
            alignment_layer,
            source=source,
            source_mask=source_mask,
            target_lengths=target_lengths,
            source_lengths=self._source_lengths(source_lengths),
            state=incremental_state,
            self_view=FULL if full_context_alignment else CAUSAL,
            cross_view=view,
            target_mask=None if bool(mask.all()) else mask,
        )
        weights = next((said["weights"] for said in notes if "weights" in said), None)
        extra = {"attn": [None if weights is None else weights.mean(1)]}
        if incremental_state is None:
            extra["encoder_out"] = encoder_out
            if log_ratio is not None:
                extra |= {"length_log_ratio": log_ratio, "source_lengths": lengths}
            if self.monotonic:
                extra |= {"delays": torch.cat([said["delays"] for said in notes], dim=1), "source_lengths": lengths}
        return x if features_only else self.output_layer(x), extra

    def step(self, tokens: Tensor, start: int, source: Tensor | None, state: State) -> Tensor:
        """Scores (B, V) of the token after ``tokens`` (B, 1), which stand at ``start``; the state moves on.

        ``source`` (n, B, C) are encoder states that the state does not hold yet; ``None``: nothing new.

        Raises:
            ValueError: a model whose positions are measured against lengths that are not known yet.
        """
        return self._step(tokens, start, source, state)[0]

    def _step(
        self,
        tokens: Tensor,
        start: int,
        source: Tensor | None,
        state: State,
        lengths: Tensor | None = None,
        target_lengths: Tensor | None = None,
        probe: tuple[int, Tensor] | None = None,
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        if lengths is None:  # then they are fixed, and no value is looked at
            lengths = torch.ones(tokens.shape[0], dtype=torch.long, device=tokens.device)
            target_lengths = None if self.length_rule is None else self.length_rule(lengths)
        x, notes = self._run_layers(
            self._embed(tokens, start),
            source=source,
            target_lengths=target_lengths,
            source_lengths=self._source_lengths(lengths),
            state=state,
            probes={} if probe is None else {probe[0]: (probe[1], start)},
        )
        return self.output_layer(x)[:, -1], notes

    def step_over(
        self,
        tokens: Tensor,
        start: int,
        source: Tensor | None,
        state: State,
        source_lengths: Tensor,
        target_lengths: Tensor | None,
        probe: tuple[int, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``step``, of tokens (B, T), over a whole source of ``source_lengths`` (B,) states, given at first.

        ``target_lengths`` (B,) are what ``expect_length`` says. With ``probe``, a layer and what ``keys`` of its
        cross-attention gave, also the weights (B, H, S) there.
        """
        scores, notes = self._step(tokens, start, source, state, source_lengths, target_lengths, probe)
        return scores, None if probe is None else notes[probe[0]]["weights"][:, :, -1]

    def expect_length(self, source: Tensor, source_mask: Tensor | None, source_lengths: Tensor) -> Tensor | None:
        """Target tokens (B,) that decoding expects upon a source (S, B, C), real states (B, S), their numbers (B,).

        ``None`` where no mechanism asks.

        Raises:
            ValueError: nothing was measured, predicted or told.
        """
        rule = self.length_rule
        if rule is None:
            return None
        return rule(
            source_lengths, rule.predict(source, source_mask) if rule.options.target_length == "predicted" else None
        )

    def feed(self, source: Tensor | None, state: State, final: bool, source_mask: Tensor | None = None) -> None:
        """Give monotonic heads the next encoder states (n, B, C); ``final``: the last ones, maybe with padding."""
        for layer in self.layers:
            layer.encoder_attn.feed(source, state, final, source_mask)

    def attempt(self, tokens: Tensor, start: int, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """Try the token after ``tokens`` (B, 1), which stand at ``start``, upon what monotonic heads were fed.

        Returns scores (B, V), how many encoder states the heads have read by then, (B,), and whether any of them would
        read on, (B,): unless the source is over, the scores then mean nothing, and the state is the caller's to put
        back.

        Raises:
            ValueError: a model whose positions are measured against lengths that are not known yet.
        """
        scores, notes = self._step(tokens, start, None, state)
        seen = torch.stack([said["seen"].amax(-1) for said in notes]).amax(0)
        return scores, seen, torch.stack([said["wants"] for said in notes]).any(0)

    @torch.no_grad()
    def reads(self, prev_output_tokens: Tensor, encoder_out: dict) -> Tensor:
        """Encoder states that monotonic heads have read when they write each target, (B, T)."""
        source, source_mask, _ = source_of(encoder_out)
        state, seen = {}, []
        self.feed(source, state, True, source_mask)
        for place, tokens in enumerate(prev_output_tokens.split(1, dim=1)):
            seen.append(self.attempt(tokens, place, state)[1])
        return torch.stack(seen, dim=1)

    def _run_layers(
        self,
        x: Tensor,
        alignment_layer: int | None = None,
        probes: dict[int, tuple[Tensor, int]] | None = None,
        **given: Tensor | View | State | None,
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Embedded tokens (T, B, C) to features (B, T, C), and what each layer said; ``given`` to every layer."""
        notes = []
        for i, layer in enumerate(self.layers):
            x, said = layer(x, need_weights=i == alignment_layer, probe=(probes or {}).get(i), **given)
            notes.append(said)
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

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        """(B, T) -> (T, B, C)"""
        x = self.embed_scale * self.embed_tokens(tokens).transpose(0, 1)
        x = x + self.embed_positions(start, x.shape[0], x.device).to(x)
        return self.dropout_module(x if self.layernorm_embedding is None else self.layernorm_embedding(x))

    def _cross_view(self, targets: int, source: Tensor) -> View:
        """Which encoder states each target of a whole sequence sees."""
        if self.wait_k is None:
            return FULL
        lagging = self.wait_k.draw() if self.training else self.lagging
        if lagging is None:
            return FULL
        read = self.wait_k.states(lagging, torch.arange(targets, device=source.device))
        return Prefix(read.clamp_max(source.shape[0]))

    def _unread(
        self, source: Tensor, mask: Tensor | None, start: int, state: State
    ) -> tuple[Tensor | None, Tensor | None]:
        """The encoder states that the token at ``start`` sees and the state does not hold yet."""
        if self.lagging is None:
            first, last = (0, len(source)) if self.layers[0].encoder_attn.name not in state else (0, 0)
        else:
            first = self.wait_k.states(self.lagging, start - 1) if start else 0
            last = self.wait_k.states(self.lagging, start)
        new = source[first:last]
        return (new, None if mask is None else mask[:, first:last]) if len(new) else (None, None)

    def _source_lengths(self, true: Tensor) -> Tensor:
        rule = self.length_rule
        return true if rule is None else source_lengths(rule.options, true, rule.streaming)


def source_of(encoder_out: dict) -> tuple[Tensor, Tensor | None, Tensor]:
    """Encoder states (S, B, C), real states (B, S) or ``None`` for all, and their numbers (B,)."""
    states = encoder_out["encoder_out"][0]
    if encoder_out["encoder_padding_mask"]:
        mask = ~encoder_out["encoder_padding_mask"][0]
        return states, mask, mask.sum(1)
    return states, None, torch.full((states.shape[1],), states.shape[0], device=states.device)
