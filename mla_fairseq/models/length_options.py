"""Flags of the lengths that positions are measured against, and the source length that follows from them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

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
