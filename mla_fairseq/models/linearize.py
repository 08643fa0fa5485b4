"""Convert a trained model to other attention: replace the mechanism, then distil what the old one computed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from mla_fairseq.attention import AttentionHeads, MonotonicMultiheadAttention
from mla_fairseq.checkpoints import saved_options
from mla_fairseq.models.building import building
from mla_fairseq.models.checks import load_strictly
from mla_fairseq.models.loading import load_as_ours
from mla_fairseq.models.options import SITES, site_type, take_defaults

SITE_OF = {
    "encoder.transformer_layers.": "encoder",
    "encoder.conformer_layers.": "encoder",
    "self_attn": "decoder",
    "encoder_attn": "cross",
}
"""The site of an attention module, by the first of these that its name contains."""


def convert(
    path: Path, task: FairseqTask, changes: Mapping[str, Any]
) -> tuple[dict[str, Any], BaseFairseqModel, BaseFairseqModel]:
    """Convert a checkpoint to a model with other options, such as ``encoder_attn_type``.

    All parameters are kept; parameters that only the new mechanisms have start from scratch.

    Args:
        path: a checkpoint of ``fairseq-train``.
        task: the task of the model.
        changes: options and their new values.

    Returns:
        The new checkpoint, its model, and the model before.

    Raises:
        ValueError: the file is not a training of fairseq or cannot be trusted, or the options make no model.
    """
    state = load_as_ours(path)
    before, after = saved_options(state), saved_options(state)
    assert before is not None and after is not None, "load_as_ours refuses files without options"
    vars(after).update(changes)
    for name in {site_type(after, site) for site in SITES} - {site_type(before, site) for site in SITES}:
        take_defaults(after, name)  # else an option that the checkpoint lacks would have its value of version 0.1
    weights = state["model"]
    models = []
    for options in (before, after):
        with building(path):
            model = task.build_model(options, from_checkpoint=True)
            load_strictly(model.load_state_dict, dict(weights), strict=True)  # a copy: loading changes the dict
        models.append(model.eval())
    teacher, student = models
    # the optimizer's state does not fit the parameters of another mechanism
    state = {key: value for key, value in state.items() if key != "last_optimizer_state"}
    state["model"] = student.state_dict()
    if state.get("cfg"):
        state["cfg"] = {**state["cfg"], "model": after}
    else:
        state["args"] = after
    return state, student, teacher


def converted(student: BaseFairseqModel, teacher: BaseFairseqModel, before: Namespace, after: Namespace) -> list[str]:
    """Return the names of the attention modules whose mechanism has changed.

    Args:
        student, teacher: what ``convert`` returned.
        before, after: the models' options.

    Raises:
        ValueError: the mechanism of monotonic attention has changed.
    """
    changed = {site for site in SITES if site_type(before, site) != site_type(after, site)}
    names = []
    for name, module in student.named_modules():
        if isinstance(module, AttentionHeads) and _site(name) in changed:
            if isinstance(module, MonotonicMultiheadAttention):
                raise ValueError("monotonic attention cannot be converted: convert a wait-k model")
            names.append(name)
    return names


def _site(name: str) -> str:
    """Return the site of the attention module with this name."""
    return next(site for fragment, site in SITE_OF.items() if fragment in name)


class Distillation:
    """Train attention modules to give the outputs of another model's modules for the same inputs.

    Both models run on the same batches. The output of each module to be trained is compared with the teacher's and then
    replaced by it, so every module learns from the inputs of the teacher's module. Hedgehog (arXiv 2402.04347, section
    4.2) compares weights in this way; outputs need no T x S matrix. Only what determines the weights is trained:
    queries, keys, and the mechanism's parameters. Padding counts like any other position. The length rule, if there is
    one, measures the lengths of the batches as in training.

    Args:
        student, teacher: models with the same parameters except those of the mechanisms.
        names: names of the modules to train.
        lr: learning rate of Adam.
    """

    def __init__(
        self, student: BaseFairseqModel, teacher: BaseFairseqModel, names: Iterable[str], lr: float = 1e-3
    ) -> None:
        self.student, self.teacher = student.eval(), teacher.eval()
        student.encoder.freezing_updates = 0  # a loaded model counts as before its first update, so it would be frozen
        if (rule := getattr(student.decoder, "length_rule", None)) is not None:
            rule.training = True  # the rule alone, so that it measures lengths while dropout stays off
        self.expected: dict[str, Tensor] = {}
        self.losses: dict[str, Tensor] = {}
        parameters: list[nn.Parameter] = []
        for name in names:
            module = student.get_submodule(name)
            for trained in (module.q_proj, module.k_proj, module.mechanism):
                parameters += trained.parameters()
            # `name=name` binds the name of this iteration; a hook that returns a tensor replaces the output
            module.register_forward_hook(lambda _, __, output, name=name: self._compare(name, output))
            teacher.get_submodule(name).register_forward_hook(
                lambda _, __, output, name=name: self.expected.update({name: output.detach()})
            )
        self.optimizer = torch.optim.Adam(parameters, lr)

    def _compare(self, name: str, output: Tensor) -> Tensor:
        """Store the loss of a module's output (T, B, C), and return the teacher's output in its place."""
        expected = self.expected[name]
        self.losses[name] = (output - expected).square().mean() / expected.square().mean().clamp_min(1e-12)
        return expected

    def run(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, float]]:
        """Train on each batch, and yield the error of each module's output before the update.

        The error is the mean squared difference from the teacher's output, divided by the mean square of that output.
        """
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


def batches(task: FairseqTask, split: str, max_tokens: int, updates: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Yield ``updates`` batches of at most ``max_tokens`` frames from a prepared split, shuffled in every epoch."""
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
