"""The text decoder: the whole target at once in training, one token per step with a state in decoding."""

from __future__ import annotations

import torch
from torch import Tensor

from mla_fairseq.attention import Prefix, State, View, reorder
from mla_fairseq.models.decoder_steps import StepDecoder, states_read
from mla_fairseq.models.decoding import CAUSAL, FULL, OWN, Source, source_of, whole_layouts, whole_weights
from mla_fairseq.models.upgrade import adapt_length_rule, adapt_monotonic


class TextDecoder(StepDecoder):
    """Target tokens (B, T) over encoder states to scores (B, T, V); parameters named as in ``s2t_transformer``.

    Where a mechanism has positions, the target length is the true one as long as the whole target is given, and the
    length rule's in decoding step by step, fixed by the first step; in a simultaneous model always the rule's.

    With wait-k, training draws a k for each batch; evaluation and decoding use the one that the batch asks for
    (``waitk_lagging`` in its ``net_input``; ``None``: the whole source), by default the middle of the range. With
    monotonic attention the heads decide: in expectation over a whole target, and one by one with a state, over the
    source that ``feed`` gave.
    """

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
        source = source_of(encoder_out)
        mask, log_ratio, rule = tokens.ne(self.padding_idx), None, self.length_rule
        if target_lengths is None and rule is not None:
            log_ratio = rule.predict(source.states, source.mask)
            target_lengths = rule.of_whole_target(mask.sum(1), source.lengths, log_ratio)
        layouts = whole_layouts(
            tokens.shape[1], source, target_lengths, self._source_lengths(source.lengths),
            None if bool(mask.all()) else mask, view, self._cross_view(tokens.shape[1], source.states, encoder_out),
        )  # fmt: skip
        weights = {} if alignment_layer is None else {alignment_layer: whole_weights}
        x, notes = self._run_layers(self._embed(tokens, 0), source.states, layouts, None, weights)
        extra = {"encoder_out": encoder_out}
        if log_ratio is not None:
            extra |= {"length_log_ratio": log_ratio, "source_lengths": source.lengths}
        if self.monotonic:
            extra |= {"delays": torch.cat([note["delays"] for note in notes], dim=1), "source_lengths": source.lengths}
        return x, notes, extra

    def _decode(
        self, prev_output_tokens: Tensor, encoder_out: dict, state: State, alignment_layer: int | None,
        target_lengths: Tensor | None,
    ) -> tuple[Tensor, list[dict[str, Tensor]]]:  # fmt: skip
        """Return features (B, 1, C) of the last of these tokens, and what the layers report."""
        whole = source_of(encoder_out)
        if OWN not in state:
            if target_lengths is None:
                asked = encoder_out.get("for_decoder", {}).get("target_lengths")
                target_lengths = self.expect_length(*whole, asked)
            self._begin(state, whole.lengths, target_lengths)
        source, mask = self._unread(encoder_out, whole, prev_output_tokens.shape[1] - 1)
        if self.monotonic and source is not None:
            self.feed(source, state, True, mask)
        weights = {} if alignment_layer is None else {alignment_layer: whole_weights}
        return self._step(prev_output_tokens[:, -1:], source, state, weights, mask)

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
            adapt_monotonic(state_dict, name, self)
        return state_dict

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
        return Prefix(self.wait_k.states(lagging, torch.arange(targets, device=source.device)).clamp_max(len(source)))

    def _unread(self, encoder_out: dict, source: Source, target: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the encoder states that target ``target`` (from 0) sees and the one before did not."""
        lagging, first, last = self._lagging(encoder_out), 0, len(source.states)
        if target:
            first = last if lagging is None else self.wait_k.states(lagging, target - 1)
        if lagging is not None:
            last = self.wait_k.states(lagging, target)
        new = source.states[first:last]
        return (new, None if source.mask is None else source.mask[:, first:last]) if len(new) else (None, None)
