"""The spectrogram decoder: all frames at once in training, one step at a time with a state in synthesis."""

from __future__ import annotations

from argparse import Namespace
from functools import partial
from typing import Any

import torch
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.models import FairseqIncrementalDecoder
from fairseq.models.text_to_speech.tacotron2 import Postnet, Prenet
from torch import Tensor, nn

from mla_fairseq.attention import State, reorder
from mla_fairseq.models.decoding import (
    ENTRY,
    Layouts,
    Source,
    fresh_entry,
    run_layers,
    source_of,
    step_layouts,
    weights_over,
    whole_layouts,
    whole_weights,
)
from mla_fairseq.models.dropout import Dropout
from mla_fairseq.models.layers import DecoderLayer, SinusoidalPositions, Weights, need_lengths
from mla_fairseq.models.length import LengthRule
from mla_fairseq.models.length_options import length_options, source_lengths
from mla_fairseq.models.length_predictor import DurationPredictor
from mla_fairseq.models.upgrade import adapt_optional
from mla_fairseq.speech.subsample import real_frames


class SpeechDecoder(FairseqIncrementalDecoder):
    """Compute log-mel frames (B, T, n F) from encoder states; parameters named as in ``tts_transformer``.

    A step emits n frames of F bins, and a target position is a step. While the whole spectrogram is given, positions
    are measured against the true number of steps, or what ``--train-target-length`` says; in synthesis against what the
    length rule expects at the first step. Every model has a length rule, because synthesis takes its limit from it.

    Args:
        args: the model's options.
        dictionary: of characters or phonemes, for the CTC loss.
    """

    def __init__(self, args: Namespace, dictionary: Dictionary) -> None:
        super().__init__(None)  # no dictionary: the output is speech
        channels = args.decoder_embed_dim
        self.n_frames_per_step = args.n_frames_per_step
        self.out_dim = args.output_frame_dim * args.n_frames_per_step
        self.guided = getattr(args, "use_guided_attention_loss", True)
        self.embed_positions = SinusoidalPositions(channels, dictionary.pad())
        self.pos_emb_alpha = nn.Parameter(torch.ones(1))
        self.prenet = nn.Sequential(
            Prenet(self.out_dim, args.prenet_layers, args.prenet_dim, args.prenet_dropout),
            nn.Linear(args.prenet_dim, channels),
        )  # its dropout is active in synthesis too, as in Tacotron 2
        self.dropout_module = Dropout(args.dropout)
        self.transformer_layers = nn.ModuleList(
            DecoderLayer(args, f"decoder.transformer_layers.{i}") for i in range(args.decoder_transformer_layers)
        )
        self.layer_norm = nn.LayerNorm(channels) if args.decoder_normalize_before else None
        self.feat_proj = nn.Linear(channels, self.out_dim)
        self.eos_proj = nn.Linear(channels, 1)
        kernel_size, layers = args.postnet_conv_kernel_size, args.postnet_layers
        self.postnet = Postnet(self.out_dim, args.postnet_conv_dim, kernel_size, layers, args.postnet_dropout)
        self.ctc_proj = nn.Linear(self.out_dim, len(dictionary)) if getattr(args, "ctc_weight", 0.0) > 0 else None
        self.length_rule = LengthRule.build(args, length_options(args), False, self.n_frames_per_step)

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Any],
        incremental_state: State | None = None,
        target_lengths: Tensor | None = None,
        speaker: Tensor | None = None,
        need_attn: bool = True,
        surrogate_gradient: bool = False,
        **unused: Any,
    ) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Return frames (B, T, n F), logits of the end (B, T, 1), and extras.

        Args:
            prev_output_tokens: (B, T, n F), the frames shifted right by a step. With a state, only the last is new.
            encoder_out: what the encoder returned.
            incremental_state: the caller's state, ``{}`` at first.
            target_lengths: (B,), steps of the whole spectrogram; ``None``: no padding. Not used with a state.
            speaker: not used: the encoder has the speaker.
            need_attn: return ``extra["attn"]`` (B, S, T), the last layer's cross-attention weights, averaged over
                heads; in training only if ``--use-guided-attention-loss`` needs them. With a state this stores the keys
                of the source, which a linear mechanism does not store otherwise.
            surrogate_gradient: give these weights the gradient of ``Mechanism.surrogate_weights``, for a loss on them.

        ``extra["feature_out"]`` are the frames before the post-net. With a state the first return value is the same:
        the post-net sees later frames, so the caller applies it at the end, with ``refine``. Extras of a length
        predictor: ``log_durations`` (B, S), ``length_log_ratio`` (B,) and ``expected_steps`` (B,).

        Raises:
            ValueError: ``need_attn`` at a later step but not at the first, or no length is known.
        """
        source = source_of(encoder_out)
        extra: dict[str, Any] = {}
        if incremental_state is None:
            if target_lengths is None:
                target_lengths = source.lengths.new_full((len(prev_output_tokens),), prev_output_tokens.shape[1])
            mask = real_frames(target_lengths, prev_output_tokens.shape[1])
            target_mask = None if bool(mask.all()) else mask
            extra = self._predict(source)
            expected = self.length_rule.of_whole_target(mask.sum(1), source.lengths, extra.get("length_log_ratio"))
            wanted = None
            if need_attn and (self.guided or not self.training):
                wanted = partial(whole_weights, surrogate=surrogate_gradient)
            x, weights = self._whole(prev_output_tokens, source, target_mask, expected, wanted)
        else:
            target_mask = None
            x, weights = self._step(prev_output_tokens[:, -1:], source, incremental_state, need_attn)
        frames = self.feat_proj(x)
        refined = frames if incremental_state is not None else self.refine(frames, target_mask)
        extra |= {"attn": weights, "feature_out": frames, "inner_states": [], "source_lengths": source.lengths}
        return refined, self.eos_proj(x), extra

    def prime(self, frames: Tensor, encoder_out: dict[str, Any], state: State) -> None:
        """Advance a state by frames (B, T, n F) in one call, as T steps would; synthesis continues after them.

        Raises:
            ValueError: no length is known, and a mechanism needs one.
        """
        self._step(frames, source_of(encoder_out), state, need_attn=False)

    def refine(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return frames (B, T, n F) with the output of the post-net added.

        ``mask`` (B, T) is true for real steps; ``None``: all are real. Padding is set to zero before every convolution,
        so an utterance in a batch ends as it does alone.
        """
        x = frames.transpose(1, 2)
        for convolution in self.postnet.convolutions:
            x = convolution(x if mask is None else x * mask.unsqueeze(1))
        return frames + x.transpose(1, 2)

    def add_positions(self, x: Tensor, start: int | Tensor) -> Tensor:
        """Add the embedding of positions from ``start`` on to the output of the pre-net (T, B, C)."""
        return self.dropout_module(x + self.pos_emb_alpha * self.embed_positions(start, len(x), x.device).to(x))

    def expect_length(self, encoder_out: dict[str, Any]) -> Tensor | None:
        """Return the steps (B,) that synthesis expects; ``None`` where none was measured, given or learnt.

        Raises:
            ValueError: no length is known, and a mechanism needs one.
        """
        source, mask, lengths = source_of(encoder_out)
        try:
            self.length_rule.check()
            return self.length_rule(lengths, self.length_rule.predict(source, mask))
        except ValueError:
            if need_lengths(self.transformer_layers):
                raise
            return None  # only the limit of synthesis needs the length, and the caller has another one

    def get_normalized_probs(
        self, net_output: tuple[Tensor, Tensor, dict[str, Any]], log_probs: bool, sample: dict[str, Any] | None = None
    ) -> Tensor:
        """Return (log-)probabilities of symbols, (B, T, V), for the CTC loss, as in fairseq."""
        assert self.ctc_proj is not None, "only the CTC loss asks for them"
        logits = self.ctc_proj(net_output[2]["feature_out"]).float()
        return utils.log_softmax(logits, dim=-1) if log_probs else utils.softmax(logits, dim=-1)

    def reorder_incremental_state_scripting(self, incremental_state: State, new_order: Tensor) -> None:
        """Put stream ``new_order[i]`` at place i of the state; streams that have ended may be left out."""
        reorder(incremental_state, new_order)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Let fairseq's checkpoints load, and those of models with another length rule."""
        adapt_optional(state_dict, f"{name}.length_rule.", self.length_rule)
        return state_dict

    def _step(self, frames: Tensor, source: Source, state: State, need_attn: bool) -> tuple[Tensor, Tensor | None]:
        """Return features (B, T, C) of the steps after frames (B, T, n F) and, if asked, weights (B, S, T)."""
        first = ENTRY not in state
        entry = self._begin(source) if first else state[ENTRY]
        if need_attn and "keys" not in entry:
            if not first:
                raise ValueError("need_attn is set at a later step: set it from the first one on")
            entry = entry | self._stored_keys(source)
        x = self._embed(frames, entry["position"])
        new, mask = (len(source.states), source.mask) if first else (0, None)  # the first step reads the whole source
        layouts, state[ENTRY] = step_layouts(entry, frames.shape[1], new, mask)
        weights = weights_over(entry["keys"], entry.get("mask")) if need_attn else None
        return self._run_layers(x, source.states if first else None, layouts, state, weights)

    def _stored_keys(self, source: Source) -> dict[str, Tensor]:
        """Return the keys (B, H, S, d) of the last layer, and the mask (B, S) unless all are real."""
        last = self.transformer_layers[-1]
        assert isinstance(last, DecoderLayer)
        keys = last.encoder_attn.keys(source.states)
        return {"keys": keys} if source.mask is None else {"keys": keys, "mask": source.mask}

    def _begin(self, source: Source) -> dict[str, Tensor]:
        """Return this module's entry in a fresh state.

        Raises:
            ValueError: no length is known, and a mechanism needs one.
        """
        if not need_lengths(self.transformer_layers):
            return fresh_entry(source.lengths, None)
        expected = self.length_rule(source.lengths, self.length_rule.predict(source.states, source.mask))
        return fresh_entry(source.lengths, (expected, source_lengths(self.length_rule.options, source.lengths)))

    def _whole(
        self, frames: Tensor, source: Source, mask: Tensor | None, expected: Tensor, weights: Weights | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return features (B, T, C) of a whole spectrogram (B, T, n F) and, if asked, weights (B, S, T).

        ``mask`` (B, T) is true for real steps; ``expected`` (B,) is what positions are measured against.
        """
        lengths: tuple[Tensor | None, Tensor | None] = (None, None)
        if need_lengths(self.transformer_layers):
            lengths = (expected, source_lengths(self.length_rule.options, source.lengths))
        layouts = whole_layouts(frames.shape[1], source, *lengths, mask)
        return self._run_layers(self._embed(frames, 0), source.states, layouts, None, weights)

    def _run_layers(
        self, x: Tensor, source: Tensor | None, layouts: Layouts, state: State | None, weights: Weights | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return features (B, T, C) of embedded frames (T, B, C) and, if asked, the last layer's weights (B, S, T)."""
        wanted = {} if weights is None else {len(self.transformer_layers) - 1: weights}
        x, reports = run_layers(self.transformer_layers, x, source, layouts, state, wanted)
        x = x if self.layer_norm is None else self.layer_norm(x)
        found = reports[-1].get("weights")
        return x.transpose(0, 1), None if found is None else found.mean(1).transpose(1, 2).to(x)  # -> (B, S, T)

    def _embed(self, frames: Tensor, start: int | Tensor) -> Tensor:
        """Return embedded frames (T, B, C) of frames (B, T, n F), the first of which are at ``start``."""
        return self.add_positions(self.prenet(frames).transpose(0, 1), start)

    def _predict(self, source: Source) -> dict[str, Tensor]:
        """Return the extras of the length predictor; none without one."""
        predictor = self.length_rule.predictor
        if not isinstance(predictor, DurationPredictor):
            return {}
        states = source.states if self.length_rule.gradient else source.states.detach()
        durations = predictor.durations(states, source.mask)
        return {
            "log_durations": durations,
            "length_log_ratio": predictor.log_ratio(durations, source.mask),
            "expected_steps": predictor.steps(durations, source.mask),
        }
