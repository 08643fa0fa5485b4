"""The length rule: the target length that positions are measured against before the target exists."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from torch import Tensor, nn

from mla_fairseq.models.length_options import LengthOptions, check_lengths
from mla_fairseq.models.length_predictor import DurationPredictor, LengthPredictor


class LengthRule(nn.Module):
    """Compute the expected target length (B,) in tokens.

    Rules: ``ratio`` is a number of tokens per encoder state, by default the mean over training that ``observe``
    measured and the checkpoint stores; ``fixed`` is one number for all; ``predicted`` comes from the length predictor;
    ``oracle`` is the true length, in training or where references are given. ``train_target_length`` names the rule of
    training and validation, ``target_length`` that of decoding.

    Args:
        options: the length flags.
        streaming: the source may not have ended, so lengths must be fixed.
        predictor: the length predictor of the rule ``predicted``.
        gradient: let the predictor's loss train the encoder too.
        noise: standard deviation of noise on the logarithm of expected lengths in training.

    Raises:
        ValueError: an unknown rule, a ratio or noise below 0, a fixed length below 1, or any rule but ``fixed`` in a
            model that streams.
    """

    tokens_and_states: Tensor
    """Target tokens and encoder states seen in training, (2,)."""
    batches: Tensor
    """Batches that trained the predictor in each process, a number; the criterion counts them."""

    def __init__(
        self,
        options: LengthOptions,
        streaming: bool = False,
        predictor: LengthPredictor | DurationPredictor | None = None,
        gradient: bool = False,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.train_rule = options.train_target_length or ("fixed" if streaming else "oracle")
        check_lengths(options, self.train_rule, streaming, noise)
        self.options, self.streaming = options, streaming
        self.predictor, self.gradient, self.noise = predictor, gradient, noise
        self.register_buffer("tokens_and_states", torch.zeros(2, dtype=torch.float64))  # exact to 2^53
        if predictor is not None:
            # not an integer: fairseq's moving average of the weights (--store-ema) multiplies every buffer
            self.register_buffer("batches", torch.zeros((), dtype=torch.float64))

    @classmethod
    def build(
        cls, args: Namespace, options: LengthOptions, streaming: bool, frames_per_step: int | None = None
    ) -> LengthRule:
        """Build the rule that the flags describe; ``frames_per_step``: frames of a decoder step, of spectrograms.

        Raises:
            ValueError: flags that make no rule.
        """
        wanted = getattr(args, "length_predictor", None) or "predicted" in (
            options.target_length,
            options.train_target_length,
        )
        if streaming and getattr(args, "length_predictor", None):
            raise ValueError(
                "--length-predictor is not supported in a simultaneous model (chunked encoder or read/write policy), "
                "which has no whole source to predict from: remove it, and give fixed lengths"
            )
        predictor: LengthPredictor | DurationPredictor | None = None
        if wanted and frames_per_step:
            predictor = DurationPredictor(args.encoder_embed_dim, frames_per_step)
        elif wanted and not streaming:
            predictor = LengthPredictor(args.encoder_embed_dim, dropout=args.dropout)
        noise = getattr(args, "length_noise", None) or 0.0
        return cls(options, streaming, predictor, bool(getattr(args, "length_gradient", None)), noise)

    def forward(self, source_lengths: Tensor, log_ratio: Tensor | None = None, true: Tensor | None = None) -> Tensor:
        """Return the target length that decoding expects, (B,).

        Args:
            source_lengths: (B,), numbers of encoder states.
            log_ratio: (B,), what ``predict`` returned, for the rule ``predicted``.
            true: (B,), the true target lengths, for the rule ``oracle``.

        Raises:
            ValueError: nothing was measured in training, or no true length is given.
        """
        if self.options.target_length != "oracle":
            return self._expect(self.options.target_length, source_lengths, log_ratio)
        if true is None:
            raise ValueError(
                "--target-length is oracle, but the target's length is not known here: decode a set with its "
                "references by fairseq-generate with --task speech_to_text_mla, or use another rule, as by "
                "--model-overrides \"{'target_length': 'ratio'}\""
            )
        return true.to(source_lengths)

    def of_whole_target(self, true: Tensor, source_lengths: Tensor, log_ratio: Tensor | None = None) -> Tensor:
        """Return the length (B,) that positions are measured against where the whole target is given.

        It follows ``train_target_length``, and has noise in training. ``true`` (B,) are the target's tokens; the other
        arguments are those of ``forward``.
        """
        if self.training and not self.streaming:
            self.observe(true, source_lengths)
        expected = true
        if self.train_rule != "oracle":
            expected = self._expect(self.train_rule, source_lengths, log_ratio)
        if not (self.training and self.noise):
            return expected
        noise = torch.randn(expected.shape, device=expected.device) * self.noise
        return (expected * noise.exp()).round().long().clamp_min(1)  # relative noise: a factor that is never negative

    def predict(self, states: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """Return the predicted logarithm of target tokens per encoder state, (B,); ``None`` without a predictor.

        ``states`` are (S, B, C); ``mask`` (B, S) is true for real ones, ``None``: all are real.
        """
        if self.predictor is None:
            return None
        # detached, the loss trains the predictor and leaves the encoder to the translation
        return self.predictor(states if self.gradient else states.detach(), mask)

    def check(self) -> None:
        """Check that decoding has all that the rule needs; call it before a beam search starts.

        Raises:
            ValueError: nothing was measured in training, or the predictor was never trained.
        """
        if self.options.target_length == "predicted" and not self.batches > 0:
            raise ValueError(
                "this model's length predictor was never trained: train it with --length-predictor and --criterion "
                "label_smoothed_cross_entropy_mla (spectrograms: tacotron2_mla), or decode with --model-overrides "
                "\"{'target_length': 'ratio'}\""
            )
        if self.options.target_length == "ratio":
            self.ratio  # noqa: B018  raises where nothing was measured

    @property
    def ratio(self) -> float:
        """Return the target tokens per encoder state of the rule ``ratio``.

        Raises:
            ValueError: no ratio was given, and none was measured in training.
        """
        if self.options.target_length_ratio > 0:
            return self.options.target_length_ratio
        tokens, states = self.tokens_and_states.tolist()
        if states == 0:
            raise ValueError(
                "this model has measured no target length in training: train it further, or give the target tokens "
                "per encoder state by --target-length-ratio 0.5 or, in decoding, by --model-overrides "
                "\"{'target_length_ratio': 0.5}\""
            )
        return tokens / states

    @torch.no_grad()
    def observe(self, target_lengths: Tensor, source_lengths: Tensor) -> None:
        """Count a training batch: target tokens (B,) and encoder states (B,)."""
        self.tokens_and_states += torch.stack((target_lengths.sum(), source_lengths.sum()))

    def _expect(self, rule: str, source_lengths: Tensor, log_ratio: Tensor | None) -> Tensor:
        """Return the target length (B,) that a rule other than ``oracle`` expects."""
        if rule == "fixed":
            return torch.full_like(source_lengths, self.options.target_length_fixed)
        if rule == "ratio":
            return (source_lengths * self.ratio).round().long().clamp_min(1)
        assert log_ratio is not None, "the rule predicted has a predictor"
        return (source_lengths * log_ratio.detach().exp()).round().long().clamp_min(1)

    def _apply(self, *args: Any, **kwargs: Any) -> LengthRule:
        """Move to another device, but keep the counts exact: ``--fp16`` casts every buffer to float16."""
        exact = dict(self.named_buffers(recurse=False))
        super()._apply(*args, **kwargs)
        for name, count in exact.items():
            setattr(self, name, count.to(getattr(self, name).device))  # float16 would end at 65504
        return self
