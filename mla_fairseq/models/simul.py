"""Simultaneous models: flags of the chunked encoder and of the read/write policy, and what they build."""

from __future__ import annotations

from argparse import BooleanOptionalAction, Namespace, _ActionsContainer

from fairseq.registry import REGISTRIES

from mla_fairseq.attention import Blocks, Full, Mechanism, Monotonic
from mla_fairseq.models.length_options import LengthOptions
from mla_fairseq.models.options import adopt_former_options
from mla_fairseq.models.wait_k import WaitK, lagging_range

PRE_DECISION = "_fixed_pre_decision"
POLICIES = ("waitk", "hard_aligned", "infinite_lookback", "chunkwise")
SIMUL_TYPES = tuple(f"{policy}{suffix}" for policy in POLICIES for suffix in ("", PRE_DECISION))

MONOTONIC_OPTIONS = (
    "fixed_pre_decision_type", "fixed_pre_decision_pad_threshold", "mass_preservation", "noise_mean", "noise_var",
    "energy_bias", "energy_bias_init", "mocha_chunk_size",
)  # fmt: skip


def has_option(simul_type: str, option: str) -> bool:
    """Return whether an option has an effect in a model with this ``--simul-type``; true for those of other parts."""
    policy = simul_type.removesuffix(PRE_DECISION)
    if option.startswith("fixed_pre_decision") and policy == simul_type:
        return False
    if option == "mocha_chunk_size":
        return policy == "chunkwise"
    return not (option in MONOTONIC_OPTIONS if policy == "waitk" else option == "waitk_lagging")


def add_chunk_args(parser: _ActionsContainer) -> None:
    """Add the flags of a chunked encoder to a parser, or to a group of its flags."""
    parser.add_argument(
        "--encoder-chunk-size",
        type=int,
        metavar="N",
        help="encoder states (40 ms) in a chunk of the encoder; a state sees its own chunk and those before it; 0: "
        "full-context encoder (default: 0, or the pre-decision ratio in a simultaneous model)",
    )
    parser.add_argument(
        "--encoder-left-chunks",
        type=int,
        metavar="N",
        help="chunks before its own that an encoder state sees, for softmax attention only; -1: all (default: -1)",
    )


def add_simul_args(parser: _ActionsContainer) -> None:
    """Add the flags of the read/write policy, under fairseq's names, to a parser or to a group of its flags."""
    # fairseq's example of simultaneous translation, where installed, adds --simul-type to every parser and, after this
    # function, the flags of its own classes: for a model of this package these here are the flags
    parser.conflict_handler = "resolve"
    REGISTRIES.pop("simul_type", None)
    parser.add_argument(
        "--simul-type",
        choices=SIMUL_TYPES,
        help="read/write policy: wait-k, or monotonic attention, whose heads decide themselves where to stop reading "
        "and attend to the last state read (hard_aligned), to all states read (infinite_lookback) or to the last few "
        "(chunkwise); with _fixed_pre_decision a decision step has several encoder states, without it one "
        "(default: waitk_fixed_pre_decision)",
    )
    parser.add_argument(
        "--waitk-lagging",
        type=lagging_range,
        metavar="K",
        help="k of wait-k in pre-decision steps, or a range such as 1-9: training then draws a k for each batch, and "
        "the model serves every latency in the range (default: 3)",
    )
    parser.add_argument(
        "--fixed-pre-decision-ratio",
        type=int,
        metavar="N",
        help="encoder states (40 ms) in a pre-decision step (default: 7)",
    )
    parser.add_argument(
        "--fixed-pre-decision-type",
        choices=("average", "last"),
        help="pooling of the encoder states of a pre-decision step, for monotonic attention (default: average)",
    )
    parser.add_argument(
        "--fixed-pre-decision-pad-threshold",
        type=float,
        metavar="P",
        help="largest fraction of the last pre-decision step that may be missing, for monotonic attention, which "
        "ignores the step if more is missing (default: 1, it is never ignored)",
    )
    parser.add_argument(
        "--mass-preservation",
        action=BooleanOptionalAction,
        default=None,
        help="guarantee that every monotonic head stops at the last step at the latest (default: yes)",
    )
    parser.add_argument(
        "--boundary-weight",
        type=float,
        metavar="X",
        help="weight of the loss of a boundary output, which finds the ends of sentences, and speech, in long "
        "recordings; it needs --context-ratio, 1 is a good weight (default: 0, no such output)",
    )
    _add_energy_args(parser)
    parser.add_argument(
        "--mocha-chunk-size",
        type=int,
        metavar="N",
        help="encoder states that a chunkwise monotonic head attends to (default: 10)",
    )
    parser.add_argument(
        "--attention-eps",
        type=float,
        metavar="X",
        help="flag of fairseq without effect here, because no division needs it (default: none)",
    )


def _add_energy_args(parser: _ActionsContainer) -> None:
    """Add the flags of the energies by which monotonic heads decide."""
    parser.add_argument(
        "--noise-mean",
        type=float,
        metavar="X",
        help="mean of the noise on the energies of monotonic heads in training (default: 0)",
    )
    parser.add_argument(
        "--noise-var",
        type=float,
        metavar="X",
        help="variance of the noise on the energies of monotonic heads in training, which drives their decisions "
        "towards 0 and 1 (default: 1)",
    )
    parser.add_argument(
        "--energy-bias",
        action="store_true",
        default=None,
        help="learned bias on the energies of the monotonic heads of each layer (default: no bias)",
    )
    parser.add_argument(
        "--energy-bias-init", type=float, metavar="X", help="initial value of --energy-bias (default: -2)"
    )


def set_simul_defaults(args: Namespace) -> None:
    """Set the defaults of a simultaneous model for flags that the command line does not give."""
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
        "boundary_weight": 0.0,
        "encoder_left_chunks": -1,
        "target_length": "fixed",
        "source_length": 750,
    }
    adopt_former_options(args, LengthOptions)  # first, or the defaults would override options of version 0.1
    for name, value in defaults.items():
        if getattr(args, name, None) is None:
            setattr(args, name, value)
    if getattr(args, "encoder_chunk_size", None) is None:
        args.encoder_chunk_size = args.fixed_pre_decision_ratio  # each decision then waits for one chunk


def build_wait_k(args: Namespace) -> WaitK | None:
    """Build the wait-k policy of a simultaneous model; ``None`` in an offline or a monotonic one.

    Raises:
        ValueError: flags that make no policy.
    """
    if _policy(args) != "waitk":
        return None
    return WaitK.parse(args.waitk_lagging, _ratio(args))


def build_monotonic(args: Namespace) -> Monotonic | None:
    """Build the policy of monotonic attention; ``None`` in an offline or a wait-k model.

    Raises:
        ValueError: flags that make no policy.
    """
    policy = _policy(args)
    if policy is None or policy == "waitk":
        return None
    return Monotonic(
        policy,
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


def _policy(args: Namespace) -> str | None:
    """Return one of ``POLICIES``, or ``None`` for an offline model."""
    simul_type = getattr(args, "simul_type", None)
    return None if simul_type is None else simul_type.removesuffix(PRE_DECISION)


def _ratio(args: Namespace) -> int:
    """Return the encoder states in a decision step."""
    return args.fixed_pre_decision_ratio if args.simul_type.endswith(PRE_DECISION) else 1


def chunk_size(args: Namespace) -> int:
    """Return the encoder states in a chunk; 0: full-context encoder."""
    return getattr(args, "encoder_chunk_size", None) or 0


def encoder_view(args: Namespace) -> Full | Blocks:
    """Return the view that says which encoder states see which.

    Raises:
        ValueError: a negative chunk size, or less than -1 left chunks.
    """
    size, left = chunk_size(args), getattr(args, "encoder_left_chunks", None)
    left = -1 if left is None else left
    if size < 0 or left < -1:
        raise ValueError(
            f"--encoder-chunk-size must be at least 0 and --encoder-left-chunks at least -1, but they are {size} "
            f"and {left}"
        )
    return Blocks(size, left) if size else Full()


def check_encoder_view(view: Full | Blocks, mechanism: Mechanism, name: str) -> None:
    """Refuse an encoder's view that its mechanism, registered as ``name``, cannot follow.

    Raises:
        ValueError: a mechanism that fades in a full-context encoder, or a limited past where the state is a sum over
            all keys.
    """
    if mechanism.in_order and not view.in_order:
        raise ValueError(
            f"--encoder-attn-type {name} fades with every state, so it needs a simultaneous model with a chunked "
            "encoder (s2t_transformer_simul_mla): use another mechanism for the encoder, or train such a model"
        )
    if view.reach is not None and not mechanism.window:
        raise ValueError(
            f"--encoder-left-chunks is {view.left}, but a linear encoder cannot forget: leave it at -1, or use "
            "--encoder-attn-type softmax"
        )
