"""The text decoder as fairseq calls it: the whole target in training, one token per call with a state in decoding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mla_fairseq.attention import Prefix, State, View, reorder
from mla_fairseq.models.decoder_steps import StepDecoder, states_read
from mla_fairseq.models.decoding import (
    CAUSAL,
    ENTRY,
    FULL,
    Source,
    source_of,
    weights_over,
    whole_layouts,
    whole_weights,
)
from mla_fairseq.models.layers import DecoderLayer, Report, Weights
from mla_fairseq.models.upgrade import adapt_monotonic, adapt_optional, adopt_monotonic
from mla_fairseq.models.wait_k import WaitK


class TextDecoder(StepDecoder):
    """Compute scores (B, T, V) of target tokens (B, T) from encoder states; parameters as in ``s2t_transformer``.

    Where a mechanism has positions, the target length is the true one while the whole target is given. With a state it
    is the length rule's, fixed by the first step. A simultaneous model always uses the length rule.

    With wait-k, training draws a k for each batch. Evaluation and decoding use ``waitk_lagging`` of the batch's
    ``net_input`` (``None``: the whole source), by default the middle of the range. With monotonic attention the heads
    decide what they read: in expectation over a whole target, or step by step over the source that ``feed`` gave.
    """

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Any],
        incremental_state: State | None = None,
        features_only: bool = False,
        full_context_alignment: bool = False,
        alignment_layer: int | None = None,
        target_lengths: Tensor | None = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Return scores (B, T, V) of every next token, and extras.

        Args:
            prev_output_tokens: (B, T), the target shifted right. With a state, only the last one is new.
            encoder_out: what the encoder returned.
            incremental_state: the caller's state, ``{}`` at first.
            features_only: leave out the projection to the vocabulary.
            full_context_alignment: let every token see every other.
            alignment_layer: return the cross-attention weights (B, T, S) of this layer, averaged over heads, as
                ``extra["attn"][0]``. Without it no weights are computed. With a state, T is 1, and encoder states that
                are not read yet have the weight 0; each call projects all keys of this layer again.
            target_lengths: (B,), the expected lengths, where the caller knows better than the length rule.

        Raises:
            ValueError: ``alignment_layer`` with a state of monotonic attention.

        Extras of monotonic attention: ``delays`` (B, layers * H, T), the encoder states that each head is expected to
        have read, of ``source_lengths`` (B,). With a state, ``attn[0]`` (B, 1, 1) is the number of encoder states that
        the heads have read: fairseq's generator keeps it with each hypothesis.

        Extras of a length predictor: ``length_log_ratio`` (B,), the logarithm of the expected target tokens per encoder
        state, and ``source_lengths`` (B,).
        """
        extra: dict[str, Any] = {}
        if incremental_state is not None:
            x, reports = self._decode(
                prev_output_tokens, encoder_out, incremental_state, alignment_layer, target_lengths
            )
        else:
            view = FULL if full_context_alignment else CAUSAL
            x, reports, extra = self._whole(prev_output_tokens, encoder_out, view, alignment_layer, target_lengths)
        weights = next((report["weights"] for report in reports if "weights" in report), None)
        extra["attn"] = [None if weights is None else weights.mean(1)]  # (B, H, T, S) -> (B, T, S)
        if self.monotonic and incremental_state is not None and weights is None:
            # "attn" is the one extra that fairseq's generator keeps for each hypothesis
            extra["attn"] = [states_read(reports).to(x)[:, None, None]]
        return x if features_only else self.output_layer(x), extra

    def _whole(
        self, tokens: Tensor, encoder_out: dict[str, Any], view: View, alignment_layer: int | None,
        target_lengths: Tensor | None,
    ) -> tuple[Tensor, list[Report], dict[str, Any]]:  # fmt: skip
        """Return features (B, T, C) of a whole target (B, T), the layers' reports, and extras."""
        source = source_of(encoder_out)
        mask, log_ratio, rule = tokens.ne(self.padding_idx), None, self.length_rule
        if target_lengths is None and rule is not None:
            log_ratio = rule.predict(source.states, source.mask)  # with gradients: the criterion trains it
            target_lengths = rule.of_whole_target(mask.sum(1) - self.prefix_size, source.lengths, log_ratio)
        layouts = whole_layouts(
            tokens.shape[1], source, target_lengths, None if rule is None else self._source_lengths(source.lengths),
            None if bool(mask.all()) else mask, view, self._cross_view(tokens.shape[1], source.states, encoder_out),
        )  # fmt: skip
        x = self._embed(tokens, 0)
        weights = {} if alignment_layer is None else {alignment_layer: whole_weights}
        x, reports = self._run_layers(x, source.states, layouts, None, weights)
        extra: dict[str, Any] = {"encoder_out": encoder_out}
        if log_ratio is not None:
            extra |= {"length_log_ratio": log_ratio, "source_lengths": source.lengths}
        if self.monotonic:
            delays = torch.cat([report["delays"] for report in reports], dim=1)
            extra |= {"delays": delays, "source_lengths": source.lengths}
        return x, reports, extra

    def _decode(
        self, tokens: Tensor, encoder_out: dict[str, Any], state: State, alignment_layer: int | None,
        target_lengths: Tensor | None,
    ) -> tuple[Tensor, list[Report]]:  # fmt: skip
        """Return features (B, 1, C) of the last of these tokens (B, T), and the layers' reports."""
        if self.monotonic and alignment_layer is not None:
            raise ValueError(
                f"alignment_layer={alignment_layer} is not supported with an incremental state of monotonic attention, "
                "whose heads keep no weights: give the whole target without a state"
            )
        whole = source_of(encoder_out)
        if ENTRY not in state:
            if target_lengths is None:
                true = encoder_out.get("for_decoder", {}).get("target_lengths")
                target_lengths = self.expect_length(*whole, true)
            self._begin(state, whole.lengths, target_lengths)
        source, mask = self._unread(encoder_out, whole, tokens.shape[1] - 1)
        if self.monotonic and source is not None:
            self.feed(source, state, True, mask)  # fairseq-generate has the whole source: it is final
        weights = {}
        if alignment_layer is not None:
            read = state[ENTRY]["source_position"] + (0 if source is None else len(source))
            weights = {alignment_layer: self._weights(alignment_layer, whole, read)}
        return self._step(tokens[:, -1:], source, state, weights, mask)

    def _weights(self, layer: int, source: Source, read: Tensor) -> Weights:
        """Return how to compute a layer's cross-attention weights over the first ``read`` (B,) states of a source."""
        visible = torch.arange(len(source.states), device=read.device) < read.unsqueeze(1)
        visible = visible if source.mask is None else visible & source.mask
        decoder_layer = self.layers[layer]
        assert isinstance(decoder_layer, DecoderLayer)
        # the state has the keys of some mechanisms only, so they are computed again from the encoder's output
        return weights_over(decoder_layer.encoder_attn.keys(source.states), visible)

    def max_positions(self) -> int:
        """Return fairseq's limit on the target length, in tokens; positions themselves have none."""
        return self.max_target_positions

    def reorder_incremental_state_scripting(self, incremental_state: State, new_order: Tensor) -> None:
        """Put hypothesis ``new_order[i]`` at place i of the state, as fairseq's beam search chose."""
        reorder(incremental_state, new_order)  # one pass over the state, where fairseq would ask every module

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Let checkpoints of fairseq and of other mechanisms load, which lack the length rule or monotonic heads."""
        adopt_monotonic(state_dict, f"{name}.", self.monotonic is not None)
        adapt_optional(state_dict, f"{name}.length_rule.", self.length_rule)
        if self.monotonic:
            adapt_monotonic(state_dict, name, self)
        return state_dict

    def _reading(self, encoder_out: dict[str, Any]) -> tuple[WaitK, int] | None:
        """Return the wait-k policy and the k of this batch; ``None``: the whole source is available."""
        if self.wait_k is None:
            return None
        if self.training:
            return self.wait_k, self.wait_k.draw()
        lagging = encoder_out.get("for_decoder", {}).get("waitk_lagging", self.wait_k.middle)
        return None if lagging is None else (self.wait_k, lagging)

    def _cross_view(self, targets: int, source: Tensor, encoder_out: dict[str, Any]) -> View:
        """Return which encoder states (S, B, C) each target of a whole sequence sees."""
        if (reading := self._reading(encoder_out)) is None:
            return FULL
        policy, lagging = reading
        # a forced token reads what the first real one reads: it takes no step of wait-k
        places = (torch.arange(targets, device=source.device) - self.prefix_size).clamp_min(0)
        return Prefix(policy.states(lagging, places).clamp_max(len(source)))

    def _unread(self, encoder_out: dict[str, Any], source: Source, target: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the encoder states that target ``target`` (from 0) sees and the one before did not, and their mask."""
        if (reading := self._reading(encoder_out)) is None:
            new = slice(len(source.states) if target else 0, None)  # the first target reads the whole source
        else:
            policy, lagging = reading
            before, upto = (policy.states(lagging, max(0, t - self.prefix_size)) for t in (target - 1, target))
            new = slice(before if target else 0, upto)
        states = source.states[new]
        # a policy that asks for more than the source has gets what is left, and then nothing new
        return (states, None if source.mask is None else source.mask[:, new]) if len(states) else (None, None)
