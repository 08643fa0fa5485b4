"""Check flags when fairseq's commands have parsed them: some use them before they set up their task."""

from __future__ import annotations

from argparse import Namespace

from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.overrides import parse_model_overrides
from mla_fairseq.tasks.flags import SIMULTANEOUS, VALIDATE, refuse

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1 - 10**6),  # fairseq adds the epoch or the update
    "num_workers": (0, 1000),
    "max_tokens": (1, 10**9),
    "batch_size": (1, 10**9),
    **dict.fromkeys(("context_ratio", "lost_onset_ratio", "noise_ratio"), (0, 1)),
    "beam": (1, 10**6),
    "nbest": (1, 10**6),
    **dict.fromkeys(
        ("lenpen", "unkpen", "max_len_a", "diverse_beam_strength", "diversity_rate", "lm_weight"), (-1e6, 1e6)
    ),
    "max_len_b": (0, 10**9),
    "sampling_topp": (-1, 1),
}
"""The least and the largest number of a flag, checked before fairseq's commands use them."""


def check_parsed(args: Namespace) -> None:
    """Check flags that a command uses before it sets up its task, and numbers that end it with a traceback.

    Raises:
        UserError: a number is out of range or does not fit another one, ``--model-overrides`` is no dictionary, or
            ``fairseq-validate`` does not support a flag.
    """
    for name, (least, most) in RANGES.items():
        value = getattr(args, name, None)
        if value is not None and not least <= value <= most:  # ``not <=`` is true for NaN
            raise UserError(f"--{name.replace('_', '-')} is {value}: give a number from {least:,} to {most:,}")
    sizes = getattr(args, "max_tokens", None), (batch := getattr(args, "batch_size", None))
    if hasattr(args, "model_overrides"):  # fairseq would evaluate it
        with user_errors():
            parse_model_overrides(args.model_overrides)
    if not hasattr(args, "beam"):
        if hasattr(args, "path"):
            refuse(args, VALIDATE | SIMULTANEOUS, "fairseq-validate")
            if sizes == (None, None):  # fairseq-validate has no default
                raise UserError("the size of batches is missing: add --max-tokens or --batch-size")
        return
    if args.sampling and args.nbest != args.beam:
        raise UserError(f"--sampling needs --nbest equal to --beam ({args.nbest}, {args.beam}): change one of them")
    buffer = max(getattr(args, "buffer_size", batch or 1), 1)
    if batch is not None and batch > buffer:
        raise UserError(f"--batch-size is above --buffer-size ({batch} > {buffer}): increase --buffer-size")
