"""What makes a model simultaneous: flags of the chunked encoder and of the read/write rule."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace

from mla_fairseq.attention import Blocks, Full, Mechanism, Monotonic, View
from mla_fairseq.models.length_options import LengthOptions
from mla_fairseq.models.options import adopt_former_options
from mla_fairseq.models.wait_k import WaitK

PRE_DECISION = "_fixed_pre_decision"
RULES = ("waitk", "hard_aligned", "infinite_lookback", "chunkwise")
SIMUL_TYPES = tuple(f"{rule}{suffix}" for rule in RULES for suffix in ("", PRE_DECISION))


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
    parser.add_argument(
        "--simul-type",
        choices=SIMUL_TYPES,
        help="read/write rule: wait-k, or monotonic attention, whose heads decide for themselves and attend to the "
        "state at which they stop (hard_aligned), all states up to it (infinite_lookback) or the last few (chunkwise); "
        "each with steps of several encoder states or, without _fixed_pre_decision, of one "
        "(default: waitk_fixed_pre_decision)",
    )
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
        help="how a monotonic rule pools the states of a step, in training too; wait-k looks at none "
        "(default: average)",
    )
    parser.add_argument(
        "--fixed-pre-decision-pad-threshold",
        type=float,
        metavar="P",
        help="the last step of a sentence counts unless more than this part of it is missing, and if it does not, no "
        "monotonic head sees its states; wait-k reads what is there (default: 1, it counts)",
    )
    parser.add_argument(
        "--mass-preservation",
        action=BooleanOptionalAction,
        default=None,
        help="monotonic: a head that comes to the last step writes there (default: yes)",
    )
    parser.add_argument(
        "--noise-mean",
        type=float,
        metavar="X",
        help="monotonic: mean of the noise on energies in training (default: 0)",
    )
    parser.add_argument(
        "--noise-var",
        type=float,
        metavar="X",
        help="monotonic: variance of that noise; it teaches to decide (default: 1)",
    )
    parser.add_argument(
        "--energy-bias", action="store_true", default=None, help="monotonic: learn a bias on the energies of a layer"
    )
    parser.add_argument(
        "--energy-bias-init", type=float, metavar="X", help="monotonic: what it starts from (default: -2)"
    )
    parser.add_argument(
        "--mocha-chunk-size",
        type=int,
        metavar="N",
        help="chunkwise: encoder states that a head attends to (default: 10)",
    )
    parser.add_argument(
        "--attention-eps",
        type=float,
        metavar="X",
        help="accepted as fairseq has it, and not needed: the expectation is computed without a division",
    )


def set_simul_defaults(args: Namespace) -> None:
    """Fill in what the command line left out."""
    defaults = {
        "simul_type": "waitk_fixed_pre_decision",
        "waitk_lagging": "3",
        "fixed_pre_decision_ratio": 7,
        "fixed_pre_decision_type": "average",
        "fixed_pre_decision_pad_threshold": 1.0,
        "mass_preservation": True,
        "noise_mean": 0.0,
        "noise_var": 1.0,
        "energy_bias": False,
        "energy_bias_init": -2.0,
        "mocha_chunk_size": 10,
        "encoder_left_chunks": -1,
        "target_length": "fixed",
        "source_length": 750,
    }
    adopt_former_options(args, LengthOptions)
    for name, value in defaults.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    if getattr(args, "encoder_chunk_size", None) is None:
        args.encoder_chunk_size = args.fixed_pre_decision_ratio


def build_wait_k(args: Namespace) -> WaitK | None:
    """The wait-k rule of a simultaneous model; ``None`` in an offline or a monotonic one.

    Raises:
        ValueError: flags that make no rule.
    """
    if _rule(args) != "waitk":
        return None
    return WaitK.parse(args.waitk_lagging, _ratio(args))


def build_monotonic(args: Namespace) -> Monotonic | None:
    """The rule of monotonic attention; ``None`` in a model without.

    Raises:
        ValueError: flags that make no rule.
    """
    rule = _rule(args)
    if rule in (None, "waitk"):
        return None
    return Monotonic(
        rule,
        ratio=_ratio(args),
        pooling=args.fixed_pre_decision_type,
        pad_threshold=args.fixed_pre_decision_pad_threshold,
        chunk=args.mocha_chunk_size,
        mass_preservation=args.mass_preservation,
        noise_mean=args.noise_mean,
        noise_var=args.noise_var,
        energy_bias=args.energy_bias,
        energy_bias_init=args.energy_bias_init,
    )


def _rule(args: Namespace) -> str | None:
    """One of ``RULES``, or ``None`` for an offline model."""
    kind = getattr(args, "simul_type", None)
    return None if kind is None else kind.removesuffix(PRE_DECISION)


def _ratio(args: Namespace) -> int:
    """Encoder states in a decision step."""
    return args.fixed_pre_decision_ratio if args.simul_type.endswith(PRE_DECISION) else 1


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


def check_encoder_view(view: View, mechanism: Mechanism, name: str) -> None:
    """Refuse an encoder's view that its mechanism cannot follow.

    Raises:
        ValueError: a window where the state is a sum over everything before, or whole utterances where it fades.
    """
    if mechanism.in_order and not view.in_order:
        raise ValueError(
            f"--encoder-attn-type {name} fades with every state, so it needs a chunked encoder: give "
            "--encoder-chunk-size, or take another mechanism for the encoder"
        )
    if view.reach is not None and not mechanism.window:
        raise ValueError(
            f"--encoder-left-chunks is {view.left}, but a linear encoder cannot forget: leave it at -1, or take "
            "--encoder-attn-type softmax"
        )
