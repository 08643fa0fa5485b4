"""Refuse flags that fairseq's commands would accept and then ignore, or that would end in a traceback."""

from __future__ import annotations

import dataclasses
import os
import stat
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import configs

from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.files import OTHER, read_text, unusable

Fixes = dict[str, str]
"""Flags that are not supported, and what to do instead."""

EVERYWHERE: Fixes = {
    **dict.fromkeys(("bpe", "tokenizer"), "remove it, the data configuration names the tokenizer"),
    "dataset_impl": "remove it, a data folder has one format",
    "required_seq_len_multiple": "remove it, batches are padded to their longest utterance",
    "multitask_config_yaml": "remove it, these models have no decoders for other tasks",
    "use_plasma_view": "remove it, fairseq uses it for text corpora only",
    "quantization_config_path": "remove it, fairseq cannot quantise these models",
    "bf16": "use --fp16, fairseq has bfloat16 on TPUs only",
    "memory_efficient_bf16": "use --memory-efficient-fp16, fairseq has bfloat16 on TPUs only",
    "tpu": "use a GPU or --cpu",
    **dict.fromkeys(("checkpoint_suffix", "checkpoint_shard_count"), "remove it, a checkpoint is one file"),
}
SIMULTANEOUS: Fixes = dict.fromkeys(
    ("simul_waitk_lagging", "simul_log", "simul_segment_size", "ctc_decoding_weight"),
    "give it to fairseq-generate, which decodes",
)
TRAIN: Fixes = SIMULTANEOUS | {
    "combine_valid_subsets": "list the sets, as in --valid-subset valid,dev",
    **dict.fromkeys(("num_shards", "shard_id"), "remove it, the processes of a training divide the data themselves"),
    "tgt_lang": "remove it, each row has its language",
}
DECODE: Fixes = {
    "sacrebleu": "use --scoring sacrebleu",
    "no_early_stop": "remove it, fairseq's search ignores it",
    "match_source_len": "limit the length by --max-len-a and --max-len-b, the source's length is in frames",
    "constraints": "remove it, fairseq reads constraints from text input only",
    "post_process": "remove it, D- lines are the text without pieces of words",
    "replace_unk": "remove it, speech has no words to copy",
    **dict.fromkeys(("beam_mt", "lenpen_mt", "max_len_a_mt", "max_len_b_mt"), "remove it, there is one decoder"),
    **dict.fromkeys(
        (
            "print_step", "retain_iter_history", "decoding_format", "iter_decode_eos_penalty", "iter_decode_max_iter",
            "iter_decode_force_max_iter", "iter_decode_with_beam", "iter_decode_with_external_reranker",
        ),
        "remove it, these models do not refine a translation in iterations",
    ),
}  # fmt: skip
INTERACTIVE: Fixes = {
    **dict.fromkeys(
        ("score_reference", "scoring", "simul_log", "simul_segment_size"), "use fairseq-generate, which has references"
    ),
    **dict.fromkeys(("lm_path", "lm_weight"), "use fairseq-generate, fairseq has no language model here"),
    "results_path": "redirect the output to a file",
    "quiet": "remove it, fairseq-interactive prints every translation",
    **dict.fromkeys(("num_shards", "shard_id"), "divide the input"),
}
VALIDATE: Fixes = {
    "results_path": "redirect the output to a file",
    "quiet": "remove it, validation prints no text",
    "tgt_lang": "remove it, each row has its language",
}
SPEECH: Fixes = {
    "store_ema": "remove it, fairseq cannot average the counters of batch normalisation, which are integers",
    **dict.fromkeys(("vocoder", "spec_bwd_max_iter", "eval_tb_nsample"), "remove it, mla-synthesize has vocoders"),
}
"""Further flags that text to speech does not support."""

DEFAULTS: dict[str, Any] = {
    field.name: field.default
    for config in (
        configs.CommonConfig, configs.DatasetConfig, configs.CheckpointConfig, configs.CommonEvalConfig,
        configs.GenerationConfig,
    )
    for field in dataclasses.fields(config)
} | {
    "scoring": "bleu", "vocoder": "griffin_lim", "spec_bwd_max_iter": 8, "eval_tb_nsample": 8,
    "simul_segment_size": 280.0,
}  # fmt: skip

SCORERS = {
    "wer": ("editdistance", "editdistance"),
    "meteor": ("nltk", "nltk"),
    "bert_score": ("bert_score", "bert-score"),
}
"""Scorers of fairseq: the module that they import, and the package that has it."""


def check_flags(args: Namespace, from_checkpoint: bool = False) -> None:
    """Refuse flags that a command of fairseq does not support with the models of this package.

    Args:
        args: the flags, or some of them.
        from_checkpoint: they are a training's, with those of ``fairseq-validate`` in their place.

    Raises:
        UserError: a flag, or a combination of flags, is not supported.
    """
    if from_checkpoint:
        refuse(args, VALIDATE, "fairseq-validate")
    elif hasattr(args, "beam"):
        refuse(args, EVERYWHERE | DECODE, "decoding")
        if hasattr(args, "buffer_size"):
            check_interactive(args)
        check_search(args)
    else:
        refuse(args, EVERYWHERE | TRAIN, "training")
        check_precision(args)


def refuse(args: Namespace, fixes: Fixes, command: str) -> None:
    """Refuse the flags in ``fixes``, unless they have their defaults.

    Raises:
        UserError: one of them is set.
    """
    for name, fix in fixes.items():
        value = getattr(args, name, None)
        if value is not None and value is not False and value != DEFAULTS.get(name):
            given = "" if isinstance(value, bool) else f" ({value})"
            raise UserError(f"--{name.replace('_', '-')} is not supported in {command}{given}: {fix}")


def check_precision(args: Namespace) -> None:
    """Check that the device can train in float16.

    Raises:
        UserError: it cannot.
    """
    on_gpu = torch.cuda.is_available() and not getattr(args, "cpu", False)
    if getattr(args, "fp16", False) and not getattr(args, "memory_efficient_fp16", False) and not on_gpu:
        raise UserError("--fp16 needs a GPU in training: remove it, or use --memory-efficient-fp16")


def check_interactive(args: Namespace) -> None:
    """Refuse flags that ``fairseq-interactive`` ignores, and an ``--input`` that it could not read to the end.

    Raises:
        UserError: one of them is set, or the input is missing, a folder or not UTF-8.
    """
    refuse(args, INTERACTIVE, "fairseq-interactive")
    if args.print_alignment == "soft":
        raise UserError("--print-alignment soft is not supported in fairseq-interactive: use fairseq-generate")
    if args.input == "-" or ((fault := unusable(Path(args.input))) == OTHER and not _is_device(args.input)):
        return  # a pipe can be read once only
    if fault:
        raise UserError(f"--input {args.input} {fault}: name a file with a line for each audio file, or use -")
    with user_errors("--input: "):
        if not read_text(Path(args.input)):
            raise ValueError(f"{args.input} is empty: write a line for each audio file")


def _is_device(name: str) -> bool:
    """Return whether a file is a device other than a terminal: some of them have no end."""
    if not stat.S_ISCHR(os.stat(name).st_mode):
        return False
    with Path(name).open("rb") as file:
        return not file.isatty()


def check_search(args: Namespace) -> None:
    """Check the flags of a search that depend on each other.

    Raises:
        UserError: one of them would have no effect, or end in a traceback.
    """
    beam, groups = args.beam, args.diverse_beam_groups
    if args.nbest > beam:
        raise UserError(f"--nbest is above --beam ({args.nbest} > {beam}): increase --beam")
    if groups > 0 and beam % groups:
        raise UserError(f"--beam is not a multiple of --diverse-beam-groups ({beam}, {groups}): change one of them")
    if args.min_len > args.max_len_b and args.max_len_a <= 0:
        raise UserError(f"--min-len is above --max-len-b ({args.min_len} > {args.max_len_b}): decrease it")
    check_fusion(args)
    if getattr(args, "simul_log", None) is None:
        refuse(args, {"simul_segment_size": "add --simul-log, of which it sets the delays"}, "decoding without a log")
    if args.score_reference and getattr(args, "simul_log", None):
        raise UserError(f"--score-reference decodes nothing to log (--simul-log {args.simul_log}): remove one of them")
    if (owners := args.retain_dropout_modules) and not args.retain_dropout:
        raise UserError(f"--retain-dropout-modules has no effect without --retain-dropout ({owners}): give both")
    module, package = SCORERS.get(args.scoring, ("torch", "torch"))
    if find_spec(module) is None:
        raise UserError(f"--scoring {args.scoring} needs the package {package}: pip install {package}")


def check_fusion(args: Namespace) -> None:
    """Check that ``--lm-path`` and ``--lm-weight`` have an effect.

    Raises:
        UserError: one of them is missing, or nothing is decoded.
    """
    if (args.lm_path is None) != (args.lm_weight == 0):
        given = f"--lm-weight {args.lm_weight}" if args.lm_path is None else f"--lm-path {args.lm_path}"
        raise UserError(f"{given} has no effect alone: give --lm-path and --lm-weight, or remove it")
    if args.lm_path is not None and args.score_reference:
        raise UserError(f"--score-reference uses no language model (--lm-path {args.lm_path}): remove one of them")


def check_prefix(args: Any) -> None:
    """Check that the search of ``fairseq-interactive`` needs no references.

    Raises:
        ValueError: it does.
    """
    if size := getattr(args, "prefix_size", 0):
        raise ValueError(f"--prefix-size is not supported in fairseq-interactive ({size}): use fairseq-generate")


def check_symbols(args: Any, dictionary: Dictionary) -> None:
    """Check that the end of sentence of a search is in the dictionary, and that it has enough symbols to sample from.

    Raises:
        ValueError: it is not, or it has not.
    """
    if (size := getattr(args, "sampling_topk", -1)) > len(dictionary):
        raise ValueError(f"--sampling-topk is {size}, but the vocabulary has {len(dictionary)} symbols: decrease it")
    if (end := getattr(args, "eos_token", None)) is not None and end not in dictionary:
        raise ValueError(f"--eos-token is not in the vocabulary ({end}): give one of its symbols")
