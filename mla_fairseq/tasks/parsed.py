"""Check flags when fairseq's commands have parsed them: some use them before they set up their task."""

from __future__ import annotations

import ast
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

from fairseq.criterions import CRITERION_REGISTRY

from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.files import check_output
from mla_fairseq.models.checks import LAST
from mla_fairseq.models.overrides import parse_model_overrides
from mla_fairseq.tasks.flags import SIMULTANEOUS, VALIDATE, refuse

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1 - 10**6),  # fairseq adds the epoch or the update
    "num_workers": (0, 1000),
    "max_tokens": (1, 10**9),
    "batch_size": (1, 10**9),
    **dict.fromkeys(("update_freq", "log_interval", "save_interval", "validate_interval"), (1, 10**9)),
    **dict.fromkeys(("clip_norm", "weight_decay"), (0, 10**9)),
    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), (0, 1)),
    "label_smoothing": (0, 1),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), (1, 100)),
    **dict.fromkeys(("encoder_embed_dim", "decoder_embed_dim"), (1, 10**6)),
    **dict.fromkeys(("context_ratio", "lost_onset_ratio", "noise_ratio"), (0, 1)),
    "beam": (1, 10**6),
    "nbest": (1, 10**6),
    **dict.fromkeys(
        ("lenpen", "unkpen", "max_len_a", "diverse_beam_strength", "diversity_rate", "lm_weight"), (-1e6, 1e6)
    ),
    "max_len_b": (0, 10**9),
    "no_repeat_ngram_size": (0, 10**6),
    "sampling_topp": (-1, 1),
}
"""The least and the largest number of a flag, checked before fairseq's commands use them."""


CRITERIONS = {
    "speech_to_text_mla": ("cross_entropy", "label_smoothed_cross_entropy", "latency_augmented"),
    "text_to_speech_mla": ("tacotron2",),
}
"""First letters of the criterions of fairseq and of this package that a task has."""


def check_parsed(args: Namespace) -> None:
    """Check flags that a command uses before it sets up its task, and numbers that end it with a traceback.

    Raises:
        UserError: a number is out of range or does not fit another one, a text is one that fairseq would change,
            ``--model-overrides`` is no dictionary, or a flag is not supported.
    """
    check_values(args)
    if getattr(args, "path", "") is None:
        raise UserError("the model is missing: add --path CHECKPOINT")
    if hasattr(args, "model_overrides"):  # fairseq would evaluate it
        with user_errors():
            parse_model_overrides(args.model_overrides)
    if hasattr(args, "path"):
        check_ranks(args)
    elif hasattr(args, "ddp_backend"):
        check_training(args)
    if hasattr(args, "beam"):
        check_decoding(args)
        return
    check_task_criterion(args)
    if hasattr(args, "path"):
        check_validation(args)


def check_validation(args: Namespace) -> None:
    """Check the flags of ``fairseq-validate``.

    Raises:
        UserError: one is not supported or missing.
    """
    refuse(args, VALIDATE | SIMULTANEOUS, "fairseq-validate")
    if ":" in args.path and not Path(args.path).exists():
        raise UserError(f"--path names several models ({args.path}): validate them one by one")
    if args.max_tokens is None and args.batch_size is None:  # fairseq-validate has no default
        raise UserError("the size of batches is missing: add --max-tokens or --batch-size")


def check_decoding(args: Namespace) -> None:
    """Check the flags of ``fairseq-generate`` and ``fairseq-interactive`` that depend on each other.

    Raises:
        UserError: two of them contradict each other, or the file of the results cannot be written.
    """
    batch = getattr(args, "batch_size", None)
    if getattr(args, "results_path", None) and not hasattr(args, "buffer_size"):
        with user_errors():
            check_output(Path(args.results_path, f"generate-{args.gen_subset}.txt"))
    if args.sampling and args.nbest != args.beam:
        raise UserError(f"--sampling needs --nbest equal to --beam ({args.nbest}, {args.beam}): change one of them")
    buffer = max(getattr(args, "buffer_size", batch or 1), 1)
    if batch is not None and batch > buffer:
        raise UserError(f"--batch-size is above --buffer-size ({batch} > {buffer}): increase --buffer-size")


def check_ranks(args: Namespace) -> None:
    """Check that this process is one of those that divide a set.

    Raises:
        UserError: its number is negative or too large.
    """
    for part, count in (("distributed_rank", "distributed_world_size"), ("shard_id", "num_shards")):
        number, most = getattr(args, part, 0), max(getattr(args, count, 1), 1)
        if not 0 <= number < most:
            fix = f"give a number from 0 to {most - 1}"
            raise UserError(f"{_flag(part)} is {number}, but {_flag(count)} is {most}: {fix}")


def check_values(args: Namespace) -> None:
    """Check the values of single flags.

    Raises:
        UserError: a number is out of range, or a text has an interpolation of hydra.
    """
    for name, (least, most) in RANGES.items():
        given = getattr(args, name, None)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not least <= value <= most:  # ``not <=`` is true for NaN
                raise UserError(f"{_flag(name)} is {value}: give a number from {least:,} to {most:,}")
    for name, value in vars(args).items():
        if isinstance(value, str) and "${" in value:
            raise UserError(f"{_flag(name)} is {value}, in which fairseq would replace ${{...}}: give another name")


def check_training(args: Namespace) -> None:
    """Check flags of ``fairseq-train`` that its optimizer, its processes and its start depend on.

    Raises:
        UserError: one of them has a value, or two of them are, that it cannot use.
    """
    if args.ddp_backend in ("fully_sharded", "slowmo") and find_spec("fairscale") is None:
        raise UserError(f"--ddp-backend {args.ddp_backend} needs the package fairscale: use legacy_ddp")
    if args.finetune_from_model and args.restore_file != LAST:
        both = f"{args.finetune_from_model}, {args.restore_file}"
        raise UserError(f"--finetune-from-model and --restore-file both name a checkpoint ({both}): remove one of them")
    if isinstance(betas := getattr(args, "adam_betas", None), str) and not _are_betas(betas):  # fairseq evaluates it
        raise UserError(f"--adam-betas is {betas}: give two numbers of at least 0 and below 1, such as '(0.9, 0.98)'")
    if getattr(args, "total_num_update", 1) is None:  # of --lr-scheduler polynomial_decay
        raise UserError("--lr-scheduler polynomial_decay has no end: add --total-num-update, as in --max-update")


def check_task_criterion(args: Namespace) -> None:
    """Check that the criterion is one for the outputs of the models of a task here, or of a ``--user-dir``.

    Raises:
        UserError: it is not.
    """
    name, starts = str(getattr(args, "criterion", None)), CRITERIONS.get(getattr(args, "task", None) or "")
    default = hasattr(args, "path") and name == "cross_entropy"  # fairseq-validate takes that of the checkpoint then
    if starts is None or name not in CRITERION_REGISTRY or name.startswith(starts) or default:
        return
    if CRITERION_REGISTRY[name].__module__.partition(".")[0] in ("fairseq", "mla_fairseq"):
        known = ", ".join(sorted(one for one in CRITERION_REGISTRY if one.startswith(starts)))
        raise UserError(f"--criterion {name} is not supported in --task {args.task}: use one of {known}")


def _are_betas(text: str) -> bool:
    """Return whether a text is two factors of moving averages."""
    try:
        first, second = ast.literal_eval(text)
        return 0 <= first < 1 and 0 <= second < 1
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
