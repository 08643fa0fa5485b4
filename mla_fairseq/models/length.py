"""The lengths that mechanisms with positions expect before target, or source, exist."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.models.options import add_options, option_values

Rule = Literal["oracle", "predicted", "ratio", "fixed"]


@dataclass(frozen=True)
class LengthOptions:
    """Lengths that the positions of a mechanism such as cosFormer are measured against.

    Target: in training, and wherever the whole target is given, the true length unless ``train_target_length`` names
    another; in decoding an expected one. Source: the true number of encoder states. A simultaneous model knows neither
    length: both are fixed numbers there, in training too.
    """

    target_length: Rule = field(
        default="ratio",
        metadata={
            "help": "target length expected in decoding by mechanisms with positions: the reference's own, the length "
            "predictor's, a ratio of the encoder states, or a fixed number",
            "former": ("cosformer_length", None),
        },
    )
    train_target_length: Rule | None = field(
        default=None,
        metadata={
            "help": "target length expected in training; None: oracle or, in a simultaneous model, fixed",
            "former": ("cosformer_train_length", None),
        },
    )
    target_length_ratio: float = field(
        default=0.0,
        metadata={
            "help": "target tokens per encoder state; 0: the mean over training, stored in the checkpoint",
            "former": ("cosformer_length_ratio", None),
        },
    )
    target_length_fixed: int = field(
        default=64,
        metadata={"help": "target tokens, end of sentence included", "former": ("cosformer_length_fixed", None)},
    )
    source_length: int = field(
        default=0,
        metadata={
            "help": "encoder states that source positions are measured against; 0: their true number",
            "former": ("cosformer_source_length", None),
        },
    )


def length_options(args: Namespace) -> LengthOptions:
    """Return the length flags of a model."""
    return LengthOptions(**option_values(args, LengthOptions))


def add_length_args(parser: ArgumentParser) -> None:
    """Add the flags of expected lengths, of the length predictor, and of length noise in training."""
    add_options(parser, LengthOptions)
    parser.add_argument(
        "--length-predictor",
        action="store_true",
        default=None,
        help="learn to predict the target's length from the encoder's states (needs --criterion "
        "label_smoothed_cross_entropy_mla or, for spectrograms, tacotron2_mla), for --target-length predicted, "
        "which has it without this flag too",
    )
    parser.add_argument(
        "--length-gradient",
        action="store_true",
        default=None,
        help="let the predictor's loss train the encoder too (default: the predictor alone)",
    )
    parser.add_argument(
        "--length-noise",
        type=float,
        metavar="X",
        help="multiply expected lengths in training by exp(X n), n normal noise, so that decoding does not hang on a "
        "perfect guess (default: 0)",
    )


class _Predictor(nn.Module):
    """Convolutions over encoder states, ReLU, layer norm and dropout, and one number; padding is zero before each, as
    it is beyond the end of a sentence that is alone."""

    def __init__(self, channels: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [channels] + [hidden] * layers
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel_size=3, padding=1) for before, after in pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, 1)

    def features(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """States (S, B, C) -> (B, hidden, S)."""
        x = states.permute(1, 2, 0)  # (B, C, S)
        real = torch.ones_like(x[:, :1]) if mask is None else mask.unsqueeze(1).to(x)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(convolution(x * real))
            x = self.dropout(norm(x.transpose(1, 2))).transpose(1, 2)
        return x


class LengthPredictor(_Predictor):
    """Encoder states (S, B, C) to the logarithm of target tokens per state, (B,).

    Two convolutions over time (k = 3, ReLU, layer norm, dropout), the mean over what is real, and one number: the shape
    of MLA's duration predictor (arXiv 2304.08453), for one ratio in place of a duration for each phoneme.
    """

    def __init__(self, channels: int, hidden: int = 128, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__(channels, hidden, layers, dropout)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask`` (B, S) is true for real states; ``None``: all are."""
        x = self.features(states, mask)
        real = torch.ones_like(x[:, :1]) if mask is None else mask.unsqueeze(1).to(x)
        mean = (x * real).sum(-1) / real.sum(-1).clamp_min(1)
        return self.output(mean).squeeze(-1).float()


class DurationPredictor(_Predictor):
    """Encoder states (S, B, C) of a text to frames of each symbol, and so to the length of the spectrogram.

    Three convolutions over the text (k = 3, 128 channels, ReLU, layer norm, dropout 0.5) and one number for each
    symbol: the logarithm of 1 + its frames (MLA, arXiv 2304.08453; after FastSpeech 2, arXiv 2006.04558).

    Args:
        channels: C.
        frames_per_step: frames that the decoder writes at once.
    """

    def __init__(
        self, channels: int, frames_per_step: int = 1, hidden: int = 128, layers: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__(channels, hidden, layers, dropout)
        self.frames_per_step = frames_per_step
        nn.init.constant_(self.output.bias, math.log1p(5))  # a start from which the sum alone can be learnt, too

    def durations(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """log(1 + frames) of each symbol, (B, S); ``mask`` (B, S) is true for real symbols, ``None``: all are."""
        return self.output(self.features(states, mask).transpose(1, 2)).squeeze(-1).float()

    def steps(self, durations: Tensor, mask: Tensor | None = None) -> Tensor:
        """What ``durations`` gave -> decoder steps, (B,); below 0 they may be while it learns, so that it can."""
        frames = durations.expm1()
        return (frames if mask is None else frames * mask).sum(1) / self.frames_per_step

    def log_ratio(self, durations: Tensor, mask: Tensor | None = None) -> Tensor:
        """What ``durations`` gave -> logarithm of decoder steps per symbol, (B,), of at least one step."""
        symbols = torch.full_like(durations[:, 0], durations.shape[1]) if mask is None else mask.sum(1)
        return (self.steps(durations, mask).clamp_min(1) / symbols.clamp_min(1)).log()

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logarithm of decoder steps per symbol, (B,)."""
        return self.log_ratio(self.durations(states, mask), mask)


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


def adapt_length_rule(state_dict: dict[str, Tensor], prefix: str, rule: LengthRule | None) -> None:
    """Let a checkpoint load whose length rule is another one: what only that has is left out, what only this has stays
    as it is here. ``prefix`` is the rule's place in the checkpoint."""
    own = {} if rule is None else rule.state_dict(prefix=prefix)
    for key in [key for key in state_dict if key.startswith(prefix) and key not in own]:
        del state_dict[key]
    for key, tensor in own.items():
        state_dict.setdefault(key, tensor.clone())


def source_lengths(options: LengthOptions, true: Tensor, streaming: bool = False) -> Tensor:
    """Encoder states that source positions are measured against, (B,), from their true numbers.

    Raises:
        ValueError: a negative length, or the true numbers where the source has not ended.
    """
    if options.source_length < 0 or (streaming and options.source_length == 0):
        raise ValueError(
            f"--source-length must be {'at least 1' if streaming else '0 or more'}, but is "
            f"{options.source_length}: give the encoder states (40 ms) of a long utterance, such as 750 for 30 s"
        )
    return torch.full_like(true, options.source_length) if options.source_length else true
