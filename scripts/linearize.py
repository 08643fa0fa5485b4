#!/usr/bin/env python3
"""Turns a trained model into one with other attention mechanisms, such as softmax into a linear one.

Every parameter is kept; what is new in a mechanism starts anew. With --distill-updates the new attention is taught
first to give what the old one gave, module by module, on the training set. What is written can be decoded at once,
and ``fairseq-train --finetune-from-model`` goes on with it.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from fairseq import tasks
from tqdm import tqdm

import mla_fairseq  # noqa: F401  registers the task
from mla_fairseq.attention import available_attention
from mla_fairseq.checkpoints import load_training
from mla_fairseq.errors import user_errors
from mla_fairseq.models.linearize import Distillation, batches, convert, converted, model_options
from mla_fairseq.recipes.averaging import save_checkpoint

SITES = ("attn_type", "encoder_attn_type", "decoder_attn_type", "cross_attn_type")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="example: linearize.py checkpoint_best.pt --data prepared/en-de --encoder-attn-type hedgehog "
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
        "--set", nargs="+", default=[], metavar="OPTION=VALUE", help="model options, such as cosformer_length=fixed"
    )
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
            raise ValueError(f"--set {pair}: write it as OPTION=VALUE, such as cosformer_length=fixed")
        changes[name.replace("-", "_")] = _plain(value)
    if args.attn_type is not None:  # a site that the checkpoint has by name would keep its own
        changes |= dict.fromkeys(SITES, None)
    changes |= {site: getattr(args, site) for site in SITES if getattr(args, site) is not None}
    return changes


def _plain(value: str) -> object:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(value.lower(), value)


def run(args: argparse.Namespace) -> None:
    """Raises ValueError for what does not fit together."""
    changes = wanted(args)
    data = {"data": str(args.data), "config_yaml": args.config_yaml, "train_subset": args.train_subset}
    limits = {"max_source_positions": 6000, "max_target_positions": 1024}
    kind = {"task": "speech_to_text_mla", "simul_segment_size": 280, "seed": args.seed}
    task = tasks.setup_task(argparse.Namespace(**kind, **data, **limits))
    before = model_options(load_training(args.checkpoint)[0])
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
    print(f"{args.output}: {len(names)} of the attention modules have another mechanism")


def main() -> None:
    args = build_parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    with user_errors():
        run(args)


if __name__ == "__main__":
    main()
