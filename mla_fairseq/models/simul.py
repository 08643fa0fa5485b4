"""What makes a model simultaneous: flags of the chunked encoder and of the read/write rule."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from torch import nn

from mla_fairseq.attention import Blocks, Full, LinearAttention, View
from mla_fairseq.models.wait_k import WaitK

SIMUL_TYPES = ("waitk_fixed_pre_decision",)


def add_chunk_args(parser: ArgumentParser) -> None:
    """Flags of an encoder that hears a chunk at a time."""
    parser.add_argument(
        "--encoder-chunk-size",
        type=int,
        metavar="N",
        help="encoder states (40 ms) in a chunk; a state sees its own chunk and those before. 0: the whole utterance "
        "(default: the pre-decision ratio in wait-k models, else 0)",
    )
    parser.add_argument(
        "--encoder-left-chunks",
        type=int,
        metavar="N",
        help="chunks before its own that a state sees, softmax only; -1: all (default: -1)",
    )


def add_simul_args(parser: ArgumentParser) -> None:
    """Flags of the read/write rule, under fairseq's names."""
    parser.add_argument("--simul-type", choices=SIMUL_TYPES, help="read/write rule (default: waitk_fixed_pre_decision)")
    parser.add_argument(
        "--waitk-lagging",
        metavar="K",
        help="k of wait-k, in pre-decision steps; a range such as 1-9 draws one for each batch, so that the model "
        "serves every latency between (default: 3)",
    )
    parser.add_argument(
        "--fixed-pre-decision-ratio",
        type=int,
        metavar="N",
        help="encoder states (40 ms) that are read at once (default: 7)",
    )
    parser.add_argument(
        "--fixed-pre-decision-type",
        choices=("average", "last"),
        help="how a monotonic rule pools the states of a step; wait-k looks at none (default: average)",
    )
    parser.add_argument(
        "--fixed-pre-decision-pad-threshold",
        type=float,
        metavar="P",
        help="the last step counts if this part of it is there, for a monotonic rule; wait-k reads what is there "
        "(default: 0.3)",
    )


def set_simul_defaults(args: Namespace) -> None:
    """Fill in what the command line left out."""
    defaults = {
        "simul_type": "waitk_fixed_pre_decision",
        "waitk_lagging": "3",
        "fixed_pre_decision_ratio": 7,
        "fixed_pre_decision_type": "average",
        "fixed_pre_decision_pad_threshold": 0.3,
        "encoder_left_chunks": -1,
        "cosformer_length": "fixed",
        "cosformer_source_length": 750,
    }
    for name, value in defaults.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    if getattr(args, "encoder_chunk_size", None) is None:
        args.encoder_chunk_size = args.fixed_pre_decision_ratio


def build_wait_k(args: Namespace) -> WaitK | None:
    """The wait-k rule of a simultaneous model; ``None`` in an offline one.

    Raises:
        ValueError: flags that make no rule.
    """
    if getattr(args, "simul_type", None) is None:
        return None
    return WaitK.parse(args.waitk_lagging, args.fixed_pre_decision_ratio)


def chunk_size(args: Namespace) -> int:
    """Encoder states in a chunk; 0: the whole utterance."""
    return getattr(args, "encoder_chunk_size", None) or 0


def encoder_view(args: Namespace) -> View:
    """Which encoder states see which.

    Raises:
        ValueError: a negative size, or a window below -1.
    """
    size, left = chunk_size(args), getattr(args, "encoder_left_chunks", None)
    left = -1 if left is None else left
    if size < 0 or left < -1:
        raise ValueError(
            f"--encoder-chunk-size must be at least 0 and --encoder-left-chunks at least -1, but they are {size} "
            f"and {left}"
        )
    return Blocks(size, left) if size else Full()


def check_window(view: View, mechanism: nn.Module) -> None:
    """Refuse a window where the mechanism has none.

    Raises:
        ValueError: a linear mechanism, whose state is a sum over all that came before.
    """
    if view.reach is not None and isinstance(mechanism, LinearAttention):
        raise ValueError(
            f"--encoder-left-chunks is {view.left}, but a linear encoder cannot forget: leave it at -1, or take "
            "--encoder-attn-type softmax"
        )
