"""Turns a trained model into one with other attention mechanisms, such as softmax into a linear one.

For speech-to-text models. All parameters are where it starts from; what is new in a mechanism starts anew. With
--distill-updates the new attention (queries, keys and what the mechanism itself has) is taught first to give what the
old one gave, module by module, on the training set. What is written can then be decoded, and
``fairseq-train --finetune-from-model`` goes on with it.
"""

from __future__ import annotations

import argparse
import difflib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from fairseq import tasks, utils
from tqdm import tqdm

from mla_fairseq import plugin  # noqa: F401 -- registers the task
from mla_fairseq.attention import available_attention
from mla_fairseq.averaging import save_checkpoint
from mla_fairseq.checkpoints import load_training
from mla_fairseq.errors import user_errors
from mla_fairseq.models.checks import check_length_rule
from mla_fairseq.models.length_options import add_length_args
from mla_fairseq.models.linearize import Distillation, batches, convert, converted, model_options
from mla_fairseq.models.options import add_attention_args

SPEECH_TO_TEXT = ("s2t_transformer", "convtransformer")
SITES = ("attn_type", "encoder_attn_type", "decoder_attn_type", "cross_attn_type")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mla-linearize",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="example: mla-linearize checkpoint_best.pt --data prepared/en-de --encoder-attn-type hedgehog "
        "--distill-updates 300 --output linear.pt",
    )
    parser.add_argument("checkpoint", type=Path, help="that fairseq-train saved: ours, or of stock s2t_transformer")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--data", type=Path, required=True, help="prepared data folder")
    parser.add_argument("--config-yaml", default="config_st.yaml", help="data configuration in that folder")
    names = ", ".join(available_attention())
    for site in SITES:
        where = "every site that is not named" if site == "attn_type" else site.split("_")[0]
        parser.add_argument(f"--{site.replace('_', '-')}", metavar="NAME", help=f"mechanism of {where}; one of {names}")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="OPTION=VALUE",
        help="options of mechanisms and lengths, such as target_length=fixed",
    )
    parser.add_argument("--user-dir", help="fairseq plugin folder with mechanisms of your own")
    parser.add_argument("--distill-updates", type=int, default=0, help="batches to teach the new attention on")
    parser.add_argument("--train-subset", default="train_st", help="manifest that they come from, without .tsv")
    parser.add_argument("--max-tokens", type=int, default=4000, help="most frames in such a batch")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of the teaching")
    parser.add_argument("--seed", type=int, default=1, help="order of the batches")
    return parser


def wanted(args: argparse.Namespace) -> dict[str, object]:
    """The options to change.

    Raises:
        ValueError: an option without a value, or nothing to change.
    """
    changes: dict[str, object] = {}
    for pair in args.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set {pair}: write it as OPTION=VALUE, such as target_length=fixed")
        changes[name.replace("-", "_")] = _value(name.replace("-", "_"), value)
    if args.attn_type is not None:  # a site that the checkpoint has by name would keep its own
        changes |= dict.fromkeys(SITES, None)
    changes |= {site: getattr(args, site) for site in SITES if getattr(args, site) is not None}
    return changes


def _value(name: str, text: str) -> object:
    """What the flag of that name makes of a text.

    Raises:
        ValueError: there is no such flag, or it takes no such value.
    """
    flags = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    add_attention_args(flags)
    add_length_args(flags)
    kinds = {action.dest: action for action in flags._actions}
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, n=1)
        hint = f": did you mean {near[0]}?" if near else f": there are {', '.join(sorted(kinds))}"
        raise ValueError(f"--set {name}={text}: there is no such option{hint}")
    if kinds[name].nargs == 0:  # a switch
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--set {name}={text}: it is true or false")
        return text.lower() == "true"
    try:
        return getattr(flags.parse_args([f"--{name.replace('_', '-')}={text}"]), name)
    except argparse.ArgumentError as error:
        raise ValueError(f"--set {name}={text}: {error.message}") from error


def run(args: argparse.Namespace) -> None:
    """Raises ValueError for what does not fit together."""
    if args.user_dir is not None:
        utils.import_user_module(argparse.Namespace(user_dir=args.user_dir))
    changes = wanted(args)
    data = {"data": str(args.data), "config_yaml": args.config_yaml, "train_subset": args.train_subset}
    limits = {"max_source_positions": 6000, "max_target_positions": 1024}
    kind = {"task": "speech_to_text_mla", "simul_segment_size": 280, "seed": args.seed}
    task = tasks.setup_task(argparse.Namespace(**kind, **data, **limits))
    trained, name = load_training(args.checkpoint)
    if not name.startswith(SPEECH_TO_TEXT):
        raise ValueError(
            f"{args.checkpoint} is of the architecture {name}: only speech-to-text models are converted here; fairseq-"
            "train --finetune-from-model starts any other mechanism from it as it is"
        )
    before = model_options(trained)
    state, student, teacher = convert(args.checkpoint, task, changes)
    after = argparse.Namespace(**{**vars(before), **changes})
    names = converted(student, teacher, before, after)
    if args.distill_updates:
        task.load_dataset(args.train_subset)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        teaching = Distillation(student.to(device), teacher.to(device), names, args.lr)
        every = batches(task, args.train_subset, args.max_tokens, args.distill_updates, args.seed)
        off = [
            sum(losses.values()) / len(losses)
            for losses in tqdm(teaching.run(every), total=args.distill_updates, unit="update")
        ]
        state["model"] = student.cpu().state_dict()
        print(f"outputs of attention were off by {off[0]:.3f} of their square at first, by {off[-1]:.3f} at last")
    save_checkpoint(state, args.output)
    try:
        check_length_rule(student)
    except ValueError as error:
        print(f"note: to decode it as it is, {error}")
    print(f"{args.output}: {len(names)} of the attention modules have another mechanism")


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    with user_errors():
        run(args)
