"""Convert a trained model to other attention mechanisms, such as from softmax to a linear one.

For speech-to-text models. All parameters are kept; parameters that only the new mechanism has start from scratch. With
--distill-updates, the new attention (queries, keys and the mechanism's parameters) is first trained to give the outputs
of the old one, module by module, on the training set. The result can be decoded, and fairseq-train
--finetune-from-model trains it further. A stock model may keep its softmax attention.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from fairseq import tasks
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from tqdm import tqdm

from mla_fairseq import plugin  # noqa: F401 -- registers the task
from mla_fairseq.attention import available_attention
from mla_fairseq.averaging import save_checkpoint
from mla_fairseq.checkpoints import load_training, saved_options
from mla_fairseq.cli.options import Help, add_user_dir, import_user_dir, run_command
from mla_fairseq.errors import user_errors
from mla_fairseq.files import check_output
from mla_fairseq.models.building import check_effect
from mla_fairseq.models.checks import check_length_rule
from mla_fairseq.models.linearize import Distillation, batches, convert, converted
from mla_fairseq.models.overrides import check_mechanisms, parse_override
from mla_fairseq.models.stock import stock_model

SPEECH_TO_TEXT = ("s2t_transformer", "s2t_conformer", "convtransformer")
SITES = ("attn_type", "encoder_attn_type", "decoder_attn_type", "cross_attn_type")
EXAMPLE = (
    "example: mla-linearize checkpoint_best.pt --data prepared/en-de --encoder-attn-type hedgehog --distill-updates 300"
    " --output linear.pt"
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-linearize``."""
    parser = argparse.ArgumentParser(prog="mla-linearize", description=__doc__, formatter_class=Help, epilog=EXAMPLE)
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of fairseq-train, of a model of this package or a stock one")
    add("--output", type=Path, required=True, help="checkpoint to write")
    add("--data", type=Path, required=True, help="prepared data folder")
    add("--config-yaml", default="config_st.yaml", help="data configuration in that folder")
    names = ", ".join(available_attention())
    for site in SITES:
        where = "every site without a flag" if site == "attn_type" else f"the {site.split('_')[0]} site"
        add(f"--{site.replace('_', '-')}", metavar="NAME", help=f"new mechanism of {where}: {names}")
    options = "options of mechanisms and lengths to change, such as target_length=fixed"
    add("--set", nargs="+", default=[], metavar="OPTION=VALUE", help=options)
    add_user_dir(parser)
    add("--distill-updates", type=int, default=0, help="number of batches to train the new attention on")
    add("--train-subset", default="train_st", help="manifest of those batches, without .tsv")
    add("--max-tokens", type=int, default=4000, help="most frames in such a batch")
    add("--lr", type=float, default=1e-3, help="learning rate of that training")
    add("--seed", type=int, default=1, help="seed of the order of the batches")
    return parser


def wanted(args: argparse.Namespace) -> dict[str, object]:
    """Return the options to change.

    Raises:
        ValueError: ``--set`` does not name an option and its value.
    """
    with user_errors("--set "):
        changes = dict(map(parse_override, args.set))
    if args.attn_type is not None:  # the sites that the checkpoint names would keep their mechanisms
        changes |= dict.fromkeys(SITES, None)
    return changes | {site: getattr(args, site) for site in SITES if getattr(args, site) is not None}


def set_up_task(args: argparse.Namespace) -> FairseqTask:
    """Return the task that builds the models and loads the batches."""
    data = {"data": str(args.data), "config_yaml": args.config_yaml, "train_subset": args.train_subset}
    limits = {"max_source_positions": 6000, "max_target_positions": 1024, "simul_segment_size": 280}
    return tasks.setup_task(argparse.Namespace(task="speech_to_text_mla", seed=args.seed, **data, **limits))


def check_architecture(checkpoint: Path) -> tuple[argparse.Namespace, bool]:
    """Return the model's options in a checkpoint of a speech-to-text model, and whether it is a stock model.

    Raises:
        ValueError: the file is not a checkpoint, or of another type of model.
    """
    trained, name = load_training(checkpoint)
    if not name.startswith(SPEECH_TO_TEXT):
        raise ValueError(
            f"{checkpoint} has the architecture {name}, but only speech-to-text models can be converted: start another "
            "mechanism from it with fairseq-train --finetune-from-model"
        )
    return saved_options(trained) or argparse.Namespace(), stock_model(name) is not None


def check_lengths(args: argparse.Namespace, task: FairseqTask) -> None:
    """Check that every utterance fits into a batch.

    Raises:
        ValueError: one does not.
    """
    dataset, limit = task.dataset(args.train_subset), task.max_positions()[0]
    lengths = map(dataset.num_tokens, range(len(dataset)))
    longest = max((length for length in lengths if length <= limit), default=0)  # fairseq leaves out longer ones
    if args.max_tokens < longest:
        has = f"but {args.train_subset} has an utterance of {longest} frames"
        raise ValueError(f"--max-tokens is {args.max_tokens}, {has}: give at least {longest}")


def distil(
    args: argparse.Namespace, task: FairseqTask, student: BaseFairseqModel, teacher: BaseFairseqModel, names: list[str]
) -> None:
    """Train the student's new attention, and report its error.

    Raises:
        ValueError: an utterance is longer than a batch.
    """
    task.load_dataset(args.train_subset)
    check_lengths(args, task)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    distillation = Distillation(student.to(device), teacher.to(device), names, args.lr)
    data = batches(task, args.train_subset, args.max_tokens, args.distill_updates, args.seed)
    steps = tqdm(distillation.run(data), total=args.distill_updates, unit="update")
    errors = [fmean(losses.values()) for losses in steps]
    student.cpu()
    print(f"squared error of the attention outputs, relative to their square: {errors[0]:.3f} -> {errors[-1]:.3f}")


def run(args: argparse.Namespace) -> None:
    """Convert the checkpoint.

    Raises:
        ValueError: the flags, the checkpoint and the data do not fit together.
    """
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    check_output(args.output)
    if args.distill_updates < 0:
        raise ValueError(f"--distill-updates is {args.distill_updates}: give 0 or more")
    import_user_dir(args.user_dir)
    changes, task = wanted(args), set_up_task(args)
    before, stock = check_architecture(args.checkpoint)
    state, student, teacher = convert(args.checkpoint, task, changes)
    options = {name: value for name, value in changes.items() if name not in SITES}
    check_effect(student, options, "--set")
    check_mechanisms(saved_options(state) or argparse.Namespace(), options, "--set")
    names = converted(student, teacher, before, argparse.Namespace(**{**vars(before), **changes}))
    if not names and not stock:
        raise ValueError("every site has the mechanism already: choose another one with --attn-type or a site's flag")
    if names and args.distill_updates:
        distil(args, task, student, teacher, names)
        state["model"] = student.state_dict()
    save_checkpoint(state, args.output)
    try:
        check_length_rule(student)
    except ValueError as error:
        print(f"note: to decode it without more training, {error}")
    print(f"{args.output}: {len(names)} attention modules have another mechanism")


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-linearize``."""
    run_command(build_parser(), run, argv)
