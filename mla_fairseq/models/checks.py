"""Checks at the command line's edge: what a user can get wrong, told in one line with its mend."""

from __future__ import annotations

import textwrap
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairseq.models import FairseqEncoder
from torch import Tensor, nn

from mla_fairseq.attention import AttentionHeads, attention_entry
from mla_fairseq.checkpoints import load_checkpoint, load_training
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.options import SITES, option_values, site_type

LENGTH_CRITERIONS = {
    "label_smoothed_cross_entropy_mla": "give --length-predictor (and a decoder with positions, such as cosFormer's), "
    "or take --criterion label_smoothed_cross_entropy",
    "tacotron2_mla": "give --length-predictor, or take --criterion tacotron2",
}
"""Criterions that train a length predictor, and the mend where a model has none."""


class OwnModel:
    """A mixin in front of a model of fairseq's: loads with one clear error, and has no published checkpoints."""

    @classmethod
    def hub_models(cls) -> dict[str, str]:
        """None are published."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Tensor], *args, **kwargs):
        """Load strictly, as fairseq does.

        Raises:
            UserError: names or shapes differ; the message lists the first and says what to check.
        """
        return load_strictly(super().load_state_dict, state_dict, *args, **kwargs)


def load_encoder(encoder: FairseqEncoder, path: str) -> FairseqEncoder:
    """Initialise an encoder from a model's checkpoint (``--load-pretrained-encoder-from``).

    Raises:
        UserError: the file is missing, is no checkpoint, or holds an encoder of another shape.
    """
    state = {
        name.removeprefix("encoder."): tensor
        for name, tensor in read_model(path).items()
        if name.startswith("encoder.") and not name.startswith("encoder.ctc_proj.")
    }
    own = {name: tensor for name, tensor in encoder.state_dict().items() if name.startswith("ctc_proj.")}
    for name, module in encoder.named_modules():
        if isinstance(module, AttentionHeads):
            module.upgrade_state_dict_named(state, name)
    load_strictly(encoder.load_state_dict, state | own)
    return encoder


def check_continued(args: Namespace) -> None:
    """Refuse to go on with a training under other mechanisms: the names of the weights fit, so fairseq would.

    Raises:
        ValueError: the checkpoint that ``fairseq-train`` is about to continue has another mechanism at a site.
    """
    last = Path(getattr(args, "save_dir", None) or "", "checkpoint_last.pt")
    if getattr(args, "restore_file", last.name) != last.name or not last.is_file():
        return  # a file that was named is a start, not what the same command left
    state, _ = load_training(last)
    saved = (state.get("cfg") or {}).get("model") or state["args"]
    saved = Namespace(**saved) if isinstance(saved, dict) else saved
    for site in SITES:
        before, now = site_type(saved, site), site_type(args, site)
        if before != now:
            raise ValueError(
                f"{last} was trained with {before} attention at site {site}, and is now to go on with {now}: give "
                f"another --save-dir, or start from its weights with --finetune-from-model {last}"
            )
        before, now = (option_values(x, attention_entry(now).options, f"{now}_") for x in (saved, args))
        if before != now:
            raise ValueError(
                f"{last} was trained with options {before} of the attention at site {site}, and is now to go on with "
                f"{now}: give the former ones, or another --save-dir"
            )


def without_predictor(criterion: str) -> str:
    """What to tell whose model has no length predictor for this criterion to train."""
    return f"this criterion trains a length predictor, and the model has none: {LENGTH_CRITERIONS[criterion]}"


def check_criterion(name: str | None, model: nn.Module) -> None:
    """Before a training starts, refuse a criterion of ours that the model has nothing for, and a predictor that no
    criterion would train.

    Raises:
        ValueError: latency without monotonic attention, a length loss without a length predictor, or the reverse.
    """
    decoder = getattr(model, "decoder", None)
    rule = getattr(decoder, "length_rule", None)
    if name == "latency_augmented_label_smoothed_cross_entropy_mla" and getattr(decoder, "monotonic", None) is None:
        raise ValueError(
            "the latency criterion needs a model with monotonic attention: give --simul-type other than waitk, or "
            "take --criterion label_smoothed_cross_entropy"
        )
    if getattr(rule, "predictor", None) is None:
        if name in LENGTH_CRITERIONS:
            raise ValueError(without_predictor(name))
    elif name not in LENGTH_CRITERIONS:
        own = f"{name}_mla" if f"{name}_mla" in LENGTH_CRITERIONS else "label_smoothed_cross_entropy_mla"
        raise ValueError(
            f"--criterion {name} trains no length predictor, and this model has one: take --criterion {own}, or leave "
            "out --length-predictor and the lengths that are predicted"
        )


def check_length_rule(model: nn.Module) -> None:
    """Before a beam search starts, ask a model for the target length that it would expect.

    Raises:
        ValueError: it has none, such as one that was trained without positions and is now told to have them.
    """
    rule = getattr(getattr(model, "decoder", None), "length_rule", None)
    if rule is not None:
        rule.check()


def read_model(path: str) -> dict[str, Tensor]:
    """The parameters in a fairseq checkpoint; nothing in the file is run.

    Raises:
        UserError: the file is missing, or is no checkpoint of fairseq's.
    """
    with user_errors():
        return load_checkpoint(Path(path))["model"]


def load_strictly(load: Callable[..., Any], state_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """Call a ``load_state_dict``; differences in names or shapes become one line.

    Raises:
        UserError: the checkpoint is of another model.
    """
    try:
        return load(state_dict, *args, **kwargs)
    except RuntimeError as error:
        differences = [line.strip() for line in str(error).splitlines()[1:]]
        first = textwrap.shorten(differences[0].rstrip("."), 200, placeholder=" ...")
        raise UserError(
            f"the checkpoint is of another model (differences: {len(differences)}, the first: {first}): "
            "check --arch, the sizes and the vocabulary that it was trained with"
        ) from error
