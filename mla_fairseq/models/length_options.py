"""Flags of the lengths that positions are measured against, their checks, and the source length."""

from __future__ import annotations

import math
from argparse import Namespace, _ActionsContainer
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from mla_fairseq.models.options import add_options, option_values

Rule = Literal["oracle", "predicted", "ratio", "fixed"]


@dataclass(frozen=True)
class LengthOptions:
    """Lengths in tokens that the positions of a mechanism such as cosFormer are measured against.

    The target length is the true one where the whole target is given, as in training, unless ``train_target_length``
    names another rule; in decoding it is an expected one. The source length is the true number of encoder states. A
    simultaneous model knows neither length: both are fixed numbers, in training too.
    """

    target_length: Rule = field(
        default="ratio",
        metadata={
            "help": "rule for the target length in decoding, for mechanisms with positions such as cosformer: oracle "
            "(the length of the reference), predicted (by the length predictor), ratio (target tokens per encoder "
            "state) or fixed (a number of tokens)",
            "default": "ratio, or fixed in a simultaneous model",
            "former": ("cosformer_length", None),
        },
    )
    train_target_length: Rule | None = field(
        default=None,
        metadata={
            "help": "rule for the target length in training, with the same choices as --target-length",
            "default": "oracle, or fixed in a simultaneous model",
            "former": ("cosformer_train_length", None),
        },
    )
    target_length_ratio: float = field(
        default=0.0,
        metadata={
            "help": "target tokens per encoder state (40 ms) for the rule ratio, in text to speech decoder steps per "
            "symbol; 0: the mean measured in training, which the checkpoint stores",
            "former": ("cosformer_length_ratio", None),
        },
    )
    target_length_fixed: int = field(
        default=64,
        metadata={
            "help": "target tokens for the rule fixed, end of sentence included",
            "former": ("cosformer_length_fixed", None),
        },
    )
    source_length: int = field(
        default=0,
        metadata={
            "help": "encoder states (40 ms) that source positions are measured against; 0: their true number",
            "default": "0, or 750 in a simultaneous model",
            "former": ("cosformer_source_length", None),
        },
    )


def length_options(args: Namespace) -> LengthOptions:
    """Return the length flags of a model."""
    return LengthOptions(**option_values(args, LengthOptions))


def add_length_args(parser: _ActionsContainer) -> None:
    """Add the flags of expected lengths, of the length predictor, and of length noise in training.

    Args:
        parser: a parser, or a group of its flags.
    """
    add_options(parser, LengthOptions)
    parser.add_argument(
        "--length-predictor",
        action="store_true",
        default=None,
        help="a network that predicts the target length from the encoder states, trained by --criterion "
        "label_smoothed_cross_entropy_mla or, for spectrograms, tacotron2_mla; --target-length predicted includes it "
        "(default: no predictor)",
    )
    parser.add_argument(
        "--length-gradient",
        action="store_true",
        default=None,
        help="training of the encoder by the length loss too (default: only the predictor learns from it)",
    )
    parser.add_argument(
        "--length-noise",
        type=float,
        metavar="X",
        help="standard deviation of noise on the logarithm of expected lengths in training, which makes decoding "
        "robust to a wrong expectation (default: 0)",
    )


def check_lengths(options: LengthOptions, train_rule: str, streaming: bool, noise: float) -> None:
    """Refuse flags that make no length rule; ``streaming``: the source may not have ended.

    Raises:
        ValueError: an unknown rule, a ratio or noise below 0, a fixed length below 1, or any rule but ``fixed``, or
            noise, where the source has not ended.
    """
    for flag, rule in (("--target-length", options.target_length), ("--train-target-length", train_rule)):
        if rule not in get_args(Rule):
            raise ValueError(f"{flag} must be one of {', '.join(get_args(Rule))}, but is {rule!r}")
        if streaming and rule != "fixed":
            raise ValueError(
                f"{flag} must be fixed, but is {rule!r}: a simultaneous model (chunked encoder or read/write policy) "
                "does not know the length of its source; give --target-length fixed, --target-length-fixed TOKENS and "
                "--source-length STATES"
            )
    if not (options.target_length_ratio >= 0 and math.isfinite(options.target_length_ratio)):
        raise ValueError(f"--target-length-ratio must be at least 0, but is {options.target_length_ratio}")
    if options.target_length_fixed < 1:
        raise ValueError(f"--target-length-fixed must be at least 1, but is {options.target_length_fixed}")
    if not (noise >= 0 and math.isfinite(noise)) or (streaming and noise > 0):
        raise ValueError(
            f"--length-noise must be {'0 where lengths are fixed' if streaming else 'at least 0'}, but is {noise}"
        )


def source_lengths(options: LengthOptions, true: Tensor, streaming: bool = False) -> Tensor:
    """Return the numbers of encoder states that source positions are measured against, (B,).

    Args:
        options: the length flags.
        true: (B,), the true numbers of encoder states.
        streaming: the source may not have ended, so ``true`` is not to be used.

    Raises:
        ValueError: a negative ``--source-length``, or 0 where the source may not have ended.
    """
    if options.source_length < 0 or (streaming and options.source_length == 0):
        raise ValueError(
            f"--source-length must be {'at least 1' if streaming else '0 or more'}, but is "
            f"{options.source_length}: give the encoder states (40 ms) of a long utterance, such as 750 for 30 s"
        )
    return torch.full_like(true, options.source_length) if options.source_length else true
