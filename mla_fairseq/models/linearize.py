"""From a trained model to one with other attention: swap the mechanism, then teach it to attend alike."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from mla_fairseq.attention import AttentionHeads, MonotonicMultiheadAttention
from mla_fairseq.checkpoints import load_training
from mla_fairseq.models.checks import load_strictly
from mla_fairseq.models.options import SITES, site_type, take_defaults

STOCK = "s2t_transformer"
SITE_OF = {"encoder.transformer_layers.": "encoder", "self_attn": "decoder", "encoder_attn": "cross"}


def model_options(state: dict[str, Any]) -> Namespace:
    """The model's options in a checkpoint of ``fairseq-train``, as a namespace of their own; stock names are ours."""
    options = state["cfg"]["model"] if state.get("cfg") else state["args"]
    options = Namespace(**(vars(options) if isinstance(options, Namespace) else options))
    for key in ("_name", "arch"):
        name = getattr(options, key, None)
        if name is not None and (name == STOCK or name.startswith(f"{STOCK}_")) and "mla" not in name:
            setattr(options, key, name.replace(STOCK, f"{STOCK}_mla", 1))
    return options


def convert(path: Path, task: FairseqTask, changes: Mapping[str, Any]) -> tuple[dict[str, Any], nn.Module, nn.Module]:
    """A checkpoint whose model has other options, such as ``encoder_attn_type``; its model, and the one it came from.

    What only the new mechanisms have starts as they start; all other parameters are kept.

    Raises:
        ValueError: the file is no training of fairseq's, or the options make no model.
    """
    state, _ = load_training(path)
    before, after = model_options(state), model_options(state)
    before.load_pretrained_encoder_from = after.load_pretrained_encoder_from = None
    vars(after).update(changes)
    for name in {site_type(after, site) for site in SITES} - {site_type(before, site) for site in SITES}:
        take_defaults(after, name)
    weights = state["model"]
    models = []
    for options in (before, after):
        model = task.build_model(options, from_checkpoint=True)
        load_strictly(model.load_state_dict, dict(weights), strict=True)
        models.append(model.eval())
    teacher, student = models
    state = {key: value for key, value in state.items() if key != "last_optimizer_state"}
    state["model"] = student.state_dict()
    if state.get("cfg"):
        state["cfg"] = {**state["cfg"], "model": after}
    else:
        state["args"] = after
    return state, student, teacher


def converted(student: nn.Module, teacher: nn.Module, before: Namespace, after: Namespace) -> list[str]:
    """Names of the attention modules whose mechanism is another one.

    Raises:
        ValueError: there is none, or one whose heads decide for themselves.
    """
    changed = {site for site in SITES if site_type(before, site) != site_type(after, site)}
    if not changed:
        raise ValueError("every site has the mechanism already: name another one by --attn-type, or one of the sites'")
    names = []
    for name, module in student.named_modules():
        if isinstance(module, AttentionHeads) and _site(name) in changed:
            if isinstance(module, MonotonicMultiheadAttention):
                raise ValueError("monotonic attention cannot be taught this way: convert the model that it starts from")
            names.append(name)
    return names


def _site(name: str) -> str:
    return next(site for part, site in SITE_OF.items() if part in name)


class Distillation:
    """Teaches attention modules to give what those of another model give for the same input.

    Both models run on the same batches. Wherever a module is to be taught, its output is compared with the teacher's
    and then replaced by it, so that every module learns upon what the teacher's would see. Hedgehog (arXiv 2402.04347,
    section 4.2) compares weights so; outputs need no T x S matrix. Only what decides about weights learns: queries,
    keys, and the mechanism's own parameters, in an encoder that was to be frozen at first too. Padding counts as all
    else does. On the way the length rule, if there is one, measures the batches' lengths as in training.

    Args:
        student, teacher: models with the same parameters but for the mechanisms'.
        names: the modules to teach.
        lr: learning rate of Adam.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, names: Iterable[str], lr: float = 1e-3) -> None:
        self.student, self.teacher = student.eval(), teacher.eval()
        student.encoder.freezing_updates = 0  # a loaded model stands before its first update
        if (rule := getattr(student.decoder, "length_rule", None)) is not None:
            rule.training = True  # it alone, so that it counts; no dropout
        self.right: dict[str, Tensor] = {}
        self.losses: dict[str, Tensor] = {}
        parameters = []
        for name in names:
            module = student.get_submodule(name)
            for part in (module.q_proj, module.k_proj, module.mechanism):
                parameters += part.parameters()
            module.register_forward_hook(lambda _, __, output, name=name: self._compare(name, output))
            teacher.get_submodule(name).register_forward_hook(
                lambda _, __, output, name=name: self.right.update({name: output.detach()})
            )
        self.optimizer = torch.optim.Adam(parameters, lr)

    def _compare(self, name: str, output: Tensor) -> Tensor:
        right = self.right[name]
        self.losses[name] = (output - right).square().mean() / right.square().mean().clamp_min(1e-12)
        return right

    def run(self, batches: Iterable[dict]) -> Iterator[dict[str, float]]:
        """One update for each batch; gives what each module's output was off by before it, as a part of the output's
        own square."""
        device = next(self.student.parameters()).device
        for batch in batches:
            batch = utils.apply_to_sample(lambda tensor: tensor.to(device), batch)
            self.losses = {}
            with torch.no_grad():
                self.teacher(**batch["net_input"])
            self.student(**batch["net_input"])
            loss = torch.stack(list(self.losses.values())).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            yield {name: float(value.detach()) for name, value in self.losses.items()}


def batches(task: FairseqTask, split: str, max_tokens: int, updates: int, seed: int = 1) -> Iterator[dict]:
    """Batches of at most ``max_tokens`` frames from a prepared split, shuffled, epoch after epoch."""
    iterator = task.get_batch_iterator(
        task.dataset(split), max_tokens=max_tokens, max_positions=task.max_positions(), seed=seed,
        ignore_invalid_inputs=True,
    )  # fmt: skip
    done = 0
    while done < updates:
        for batch in iterator.next_epoch_itr(shuffle=True):
            if done == updates:
                return
            done += 1
            yield batch
