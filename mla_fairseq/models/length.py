"""The lengths that mechanisms with positions expect before target, or source, exist."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mla_fairseq.attention import LengthOptions


class LengthRule(nn.Module):
    """Expected target length (B,) in tokens from the number of encoder states (B,).

    With ``ratio`` and no number given, the rule measures target tokens per encoder state on the batches that
    ``observe`` is given in training, and the checkpoint keeps the mean. A length predictor takes this module's place
    by being called the same way.

    Raises:
        ValueError: an unknown rule, a ratio below 0, a fixed length below 1, or a ratio in a model that streams.
    """

    def __init__(self, options: LengthOptions, streaming: bool = False) -> None:
        super().__init__()
        if options.length not in ("ratio", "fixed"):
            raise ValueError(f"--cosformer-length must be ratio or fixed, but is {options.length!r}")
        if options.length_ratio < 0:
            raise ValueError(f"--cosformer-length-ratio must be at least 0, but is {options.length_ratio}")
        if options.length_fixed < 1:
            raise ValueError(f"--cosformer-length-fixed must be at least 1, but is {options.length_fixed}")
        if streaming and options.length != "fixed":
            raise ValueError(
                f"--cosformer-length must be fixed, but is {options.length!r}: a model that translates while it "
                "listens knows no source length to take a ratio of"
            )
        self.options = options
        self.streaming = streaming
        self.register_buffer("tokens_and_states", torch.zeros(2, dtype=torch.float64))

    def forward(self, source_lengths: Tensor) -> Tensor:
        if self.options.length == "fixed":
            return torch.full_like(source_lengths, self.options.length_fixed)
        return (source_lengths * self.ratio).round().long().clamp_min(1)

    @property
    def ratio(self) -> float:
        """Target tokens per encoder state.

        Raises:
            ValueError: nothing was given and nothing was measured.
        """
        if self.options.length_ratio > 0:
            return self.options.length_ratio
        tokens, states = self.tokens_and_states.tolist()
        if states == 0:
            raise ValueError(
                "this model has measured no target length in training: train it further, or give it tokens per state, "
                "by --cosformer-length-ratio or in decoding by --model-overrides \"{'cosformer_length_ratio': 0.5}\""
            )
        return tokens / states

    @torch.no_grad()
    def observe(self, target_lengths: Tensor, source_lengths: Tensor) -> None:
        """Count a training batch: target tokens (B,) over encoder states (B,)."""
        self.tokens_and_states += torch.stack((target_lengths.sum(), source_lengths.sum()))

    def _apply(self, *args, **kwargs) -> LengthRule:
        """Move to another device as told, but stay exact: ``--fp16`` casts every buffer, and float16 ends at 65504."""
        exact = self.tokens_and_states
        super()._apply(*args, **kwargs)
        self.tokens_and_states = exact.to(self.tokens_and_states.device)
        return self


def source_lengths(options: LengthOptions, true: Tensor, streaming: bool = False) -> Tensor:
    """Encoder states that source positions are measured against, (B,), from their true numbers.

    Raises:
        ValueError: a negative length, or the true numbers where the source has not ended.
    """
    if options.source_length < 0 or (streaming and options.source_length == 0):
        raise ValueError(
            f"--cosformer-source-length must be {'at least 1' if streaming else '0 or more'}, but is "
            f"{options.source_length}: give the encoder states (40 ms) of a long utterance, such as 750 for 30 s"
        )
    return torch.full_like(true, options.source_length) if options.source_length else true
