"""The target length that mechanisms with positions expect before the target exists."""

from __future__ import annotations

import math
from argparse import Namespace
from typing import get_args

import torch
from torch import Tensor, nn

from mla_fairseq.models.length_options import LengthOptions, Rule
from mla_fairseq.models.length_predictor import DurationPredictor, LengthPredictor


class LengthRule(nn.Module):
    """Expected target length (B,) in tokens.

    ``ratio``: so many tokens per encoder state; where no number was given, the mean over the batches that ``observe``
    was told of in training, which the checkpoint keeps. ``fixed``: one number for all. ``predicted``: by the length
    predictor. ``oracle``: the true length, in training or where the data are known. In training and validation the
    rule is ``train_target_length``, in decoding ``target_length``.

    Raises:
        ValueError: an unknown kind, a ratio or noise below 0, a fixed length below 1, or anything but fixed lengths in
            a model that streams, where neither the source's length nor the whole of it is known.
    """

    def __init__(
        self,
        options: LengthOptions,
        streaming: bool = False,
        predictor: LengthPredictor | DurationPredictor | None = None,
        gradient: bool = False,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.train_kind = options.train_target_length or ("fixed" if streaming else "oracle")
        for flag, kind in (("--target-length", options.target_length), ("--train-target-length", self.train_kind)):
            if kind not in get_args(Rule):
                raise ValueError(f"{flag} must be one of {', '.join(get_args(Rule))}, but is {kind!r}")
            if streaming and kind != "fixed":
                raise ValueError(
                    f"{flag} must be fixed, but is {kind!r}: a model that translates while it listens knows no source "
                    "length to take a ratio of, nor a whole source to predict from; give --target-length fixed, "
                    "--target-length-fixed TOKENS and --source-length STATES"
                )
        if not (options.target_length_ratio >= 0 and math.isfinite(options.target_length_ratio)):
            raise ValueError(f"--target-length-ratio must be at least 0, but is {options.target_length_ratio}")
        if options.target_length_fixed < 1:
            raise ValueError(f"--target-length-fixed must be at least 1, but is {options.target_length_fixed}")
        if not (noise >= 0 and math.isfinite(noise)) or (streaming and noise > 0):
            raise ValueError(
                f"--length-noise must be {'0 where lengths are fixed' if streaming else 'at least 0'}, but is {noise}"
            )
        self.options, self.streaming = options, streaming
        self.predictor, self.gradient, self.noise = predictor, gradient, noise
        self.register_buffer("tokens_and_states", torch.zeros(2, dtype=torch.float64))
        if predictor is not None:
            self.register_buffer("batches", torch.zeros((), dtype=torch.long))  # that trained it: the criterion counts

    @classmethod
    def build(
        cls, args: Namespace, options: LengthOptions, streaming: bool, frames_per_step: int | None = None
    ) -> LengthRule:
        """As the flags say; of a spectrogram, of which the decoder writes so many frames at a step.

        Raises:
            ValueError: flags that make no rule.
        """
        wanted = getattr(args, "length_predictor", None) or "predicted" in (
            options.target_length,
            options.train_target_length,
        )
        if streaming and getattr(args, "length_predictor", None):
            raise ValueError(
                "--length-predictor is nothing for a model that translates while it listens: it knows no whole source "
                "to predict from; leave it out, and give fixed lengths"
            )
        predictor = None
        if wanted and frames_per_step:
            predictor = DurationPredictor(args.encoder_embed_dim, frames_per_step)
        elif wanted and not streaming:
            predictor = LengthPredictor(args.encoder_embed_dim, dropout=args.dropout)
        noise = getattr(args, "length_noise", None) or 0.0
        return cls(options, streaming, predictor, bool(getattr(args, "length_gradient", None)), noise)

    def forward(self, source_lengths: Tensor, log_ratio: Tensor | None = None, true: Tensor | None = None) -> Tensor:
        """Return the target length that decoding expects, (B,).

        From the numbers of encoder states (B,) and, by rule, what ``predict`` returned or the ``true`` lengths (B,).

        Raises:
            ValueError: nothing was measured, or no true length is given.
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
        """What positions are measured against where the whole target, of ``true`` (B,) tokens, is given: in training
        by ``train_target_length``, with noise."""
        if self.training and not self.streaming:
            self.observe(true, source_lengths)
        expected = true
        if self.train_kind != "oracle":
            expected = self._expect(self.train_kind, source_lengths, log_ratio)
        if not (self.training and self.noise):
            return expected
        noise = torch.randn(expected.shape, device=expected.device) * self.noise
        return (expected * noise.exp()).round().long().clamp_min(1)

    def predict(self, states: Tensor, mask: Tensor | None = None) -> Tensor | None:
        """Logarithm of target tokens per state (B,), from encoder states (S, B, C) and which are real (B, S); ``None``
        without a predictor."""
        if self.predictor is None:
            return None
        return self.predictor(states if self.gradient else states.detach(), mask)

    def check(self) -> None:
        """Before a beam search starts, say what it would lack.

        Raises:
            ValueError: nothing was measured, or the predictor was never trained.
        """
        if self.options.target_length == "predicted" and not int(self.batches):
            raise ValueError(
                "this model's length predictor was never trained: train it with --length-predictor and --criterion "
                "label_smoothed_cross_entropy_mla (spectrograms: tacotron2_mla), or decode with --model-overrides "
                "\"{'target_length': 'ratio'}\""
            )
        if self.options.target_length == "ratio":
            self.ratio  # noqa: B018  raises where nothing was measured

    @property
    def ratio(self) -> float:
        """Target tokens per encoder state.

        Raises:
            ValueError: nothing was given and nothing was measured.
        """
        if self.options.target_length_ratio > 0:
            return self.options.target_length_ratio
        tokens, states = self.tokens_and_states.tolist()
        if states == 0:
            raise ValueError(
                "this model has measured no target length in training: train it further, or give it tokens per state, "
                "by --target-length-ratio or in decoding by --model-overrides \"{'target_length_ratio': 0.5}\""
            )
        return tokens / states

    @torch.no_grad()
    def observe(self, target_lengths: Tensor, source_lengths: Tensor) -> None:
        """Count a training batch: target tokens (B,) over encoder states (B,)."""
        self.tokens_and_states += torch.stack((target_lengths.sum(), source_lengths.sum()))

    def _expect(self, kind: str, source_lengths: Tensor, log_ratio: Tensor | None) -> Tensor:
        if kind == "fixed":
            return torch.full_like(source_lengths, self.options.target_length_fixed)
        ratio = self.ratio if kind == "ratio" else log_ratio.detach().exp()
        return (source_lengths * ratio).round().long().clamp_min(1)

    def _apply(self, *args, **kwargs) -> LengthRule:
        """Move to another device as told, but stay exact: ``--fp16`` casts every buffer, and float16 ends at 65504."""
        exact = self.tokens_and_states
        super()._apply(*args, **kwargs)
        self.tokens_and_states = exact.to(self.tokens_and_states.device)
        return self
