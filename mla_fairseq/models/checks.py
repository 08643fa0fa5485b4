"""Checks of what a user can get wrong: each error is one line that names the value and the fix."""

from __future__ import annotations

import textwrap
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fairseq.models import BaseFairseqModel, FairseqEncoder
from torch import Tensor, nn

from mla_fairseq.attention import AttentionHeads, attention_entry
from mla_fairseq.checkpoints import check_symbols, load_checkpoint, load_training, transcript_symbols
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.dropout import retain_dropout
from mla_fairseq.models.options import SITES, option_values, site_type

CRITERION = "label_smoothed_cross_entropy_mla"
LATENCY_CRITERION = "latency_augmented_label_smoothed_cross_entropy_mla"
"""The former name of ``CRITERION`` for models with monotonic attention."""

LENGTH_CRITERIONS = (CRITERION, LATENCY_CRITERION, "tacotron2_mla")
"""Criterions that train a length predictor."""

LAST = "checkpoint_last.pt"
"""The only file that fairseq resumes a training from, unless ``--restore-file`` names another."""

NO_MONOTONIC = (
    f"latency terms need a model with monotonic attention: give --simul-type other than waitk, or use --criterion "
    f"{CRITERION} without latency weights"
)

NO_PREDICTOR = (
    "--criterion tacotron2_mla trains a length predictor, but the model has none: give --length-predictor, or use "
    "--criterion tacotron2"
)


class MLAModel(BaseFairseqModel):
    """The base of this package's models: loads with one clear error, and has no published checkpoints."""

    @classmethod
    def hub_models(cls) -> dict[str, str]:
        """Return no published checkpoints."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Load strictly, as fairseq does.

        Raises:
            UserError: names or shapes differ; the message names the first difference and what to check.
        """
        return load_strictly(super().load_state_dict, state_dict, *args, **kwargs)

    def make_generation_fast_(self, **kwargs: Any) -> None:
        """Prepare for decoding as fairseq does, with ``--retain-dropout`` and ``--retain-dropout-modules``.

        Raises:
            UserError: ``--retain-dropout-modules`` names a class of which no module has dropout.
        """
        super().make_generation_fast_(**kwargs)
        if kwargs.get("retain_dropout"):
            owners = kwargs.get("retain_dropout_modules")
            with user_errors():
                retain_dropout(self, owners.split(",") if isinstance(owners, str) else owners)


def load_encoder(encoder: FairseqEncoder, path: str) -> FairseqEncoder:
    """Initialise an encoder from a model's checkpoint (``--load-pretrained-encoder-from``), and return it.

    Raises:
        UserError: the file is missing, is no checkpoint, or has an encoder of other sizes.
    """
    with user_errors():
        checkpoint = load_checkpoint(Path(path))
    # fairseq's CTC layer belongs to the criterion and the vocabulary of one training: each encoder keeps its own
    state = {
        name.removeprefix("encoder."): tensor
        for name, tensor in checkpoint["model"].items()
        if name.startswith("encoder.") and not name.startswith("encoder.ctc_proj.")
    }
    if (outputs := getattr(encoder, "ctc", None)) is not None:
        outputs.adapt(state, transcript_symbols(checkpoint))
    ctc = {name: tensor for name, tensor in encoder.state_dict().items() if name.startswith("ctc_proj.")}
    encoder.upgrade_state_dict_named(state, "")
    for name, module in encoder.named_modules():
        if isinstance(module, AttentionHeads):
            module.upgrade_state_dict_named(state, name)  # fairseq upgrades only checkpoints of whole models
    load_strictly(encoder.load_state_dict, state | ctc)
    return encoder


def resumed(args: Namespace) -> Path | None:
    """Return the checkpoint that ``fairseq-train`` resumes; ``None`` if it does not resume."""
    last = Path(getattr(args, "save_dir", None) or "", LAST)
    return last if getattr(args, "restore_file", LAST) == LAST and last.is_file() else None


def starts(args: Namespace) -> list[str]:
    """Return the checkpoints whose weights a training starts from, in fairseq's order.

    They are that of ``--finetune-from-model``, unless the training resumes, and that of ``--restore-file``.
    """
    paths = [] if resumed(args) else [getattr(args, "finetune_from_model", None)]
    if (start := getattr(args, "restore_file", None)) != LAST:  # the default, which may be missing
        paths.append(start)
    return [path for path in paths if path]


def check_continued(args: Namespace, symbols: Sequence[str]) -> None:
    """Refuse to resume a training with other mechanisms: fairseq would, because the names of the weights fit.

    Args:
        args: the options of ``fairseq-train``.
        symbols: those of the data.

    Raises:
        ValueError: the checkpoint that ``fairseq-train`` is about to resume has another mechanism at a site, or other
            symbols.
    """
    if (last := resumed(args)) is None:
        return
    state, _ = load_training(last)
    check_symbols(last, state, symbols, args.data)
    saved = (state.get("cfg") or {}).get("model") or state["args"]  # older versions of fairseq saved args
    saved = Namespace(**saved) if isinstance(saved, dict) else saved
    for site in SITES:
        before, name = site_type(saved, site), site_type(args, site)
        if before != name:
            raise ValueError(
                f"{last} was trained with {before} attention at site {site}, but this command has {name}: give another "
                f"--save-dir, or start from its weights with --finetune-from-model {last}"
            )
        trained, given = (option_values(x, attention_entry(name).options, f"{name}_") for x in (saved, args))
        if trained != given:
            raise ValueError(
                f"{last} was trained with options {trained} of the attention at site {site}, but this command has "
                f"{given}: give the same options, or another --save-dir"
            )


def check_criterion(args: Namespace, model: nn.Module) -> None:
    """Refuse, before a training starts, a criterion that does not fit the model.

    Args:
        args: the options of ``fairseq-train``.
        model: the model to train.

    Raises:
        ValueError: latency terms without monotonic attention, spectrograms without the length predictor that their
            criterion trains, a length predictor or a boundary output that is not trained, context for a model that
            cannot leave it out, or CTC for a model without such outputs.
    """
    name, decoder = getattr(args, "criterion", None), getattr(model, "decoder", None)
    check_latency_terms(args, getattr(decoder, "monotonic", None) is not None)
    if name in (CRITERION, LATENCY_CRITERION) and getattr(args, "ctc_weight", None) and not isinstance(model, MLAModel):
        raise ValueError(
            f"--ctc-weight {args.ctc_weight} needs a model of mla_fairseq: remove it, or use another --arch"
        )
    check_context(args, model)
    if getattr(getattr(decoder, "length_rule", None), "predictor", None) is None:
        if name == "tacotron2_mla":
            raise ValueError(NO_PREDICTOR)
    elif name not in LENGTH_CRITERIONS:
        fitting = f"{name}_mla" if f"{name}_mla" in LENGTH_CRITERIONS else CRITERION
        raise ValueError(
            f"--criterion {name} trains no length predictor, but this model has one: use --criterion {fitting}, or "
            "remove --length-predictor, --target-length predicted and --train-target-length predicted"
        )


def check_latency_terms(args: Namespace, monotonic: bool) -> None:
    """Refuse latency terms for a model that is not ``monotonic``.

    Raises:
        ValueError: the criterion has some.
    """
    name = getattr(args, "criterion", None)
    weights = [getattr(args, f"latency_{term}_weight", None) or 0 for term in ("avg", "var")]
    if not monotonic and (name == LATENCY_CRITERION or (name == CRITERION and any(weights))):
        raise ValueError(NO_MONOTONIC)


def check_context(args: Namespace, model: nn.Module) -> None:
    """Check that a boundary output is trained, and that the model can leave out what follows a sentence.

    Raises:
        ValueError: it is not, or it cannot.
    """
    context, criterion = getattr(args, "context_ratio", 0.0), getattr(args, "criterion", None)
    if context and not isinstance(model, MLAModel):
        raise ValueError(f"--context-ratio {context} needs a model of mla_fairseq: remove it, or use another --arch")
    if getattr(getattr(model, "encoder", None), "boundary", None) is None:
        return
    if not context:
        raise ValueError("--boundary-weight learns from what follows a sentence: add --context-ratio 0.8")
    if criterion not in (CRITERION, LATENCY_CRITERION):
        raise ValueError(f"--criterion {criterion} trains no boundary output: use --criterion {CRITERION}")


def check_length_rule(model: nn.Module) -> None:
    """Check, before a beam search starts, that a model has a target length to expect.

    Raises:
        ValueError: it has none, for example because it was trained without positions and an override gave it some.
    """
    rule = getattr(getattr(model, "decoder", None), "length_rule", None)
    if rule is not None:
        rule.check()


def load_strictly(load: Callable[..., Any], state_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """Call a ``load_state_dict``, and report differences in names or shapes in one line.

    Raises:
        UserError: the checkpoint is of another model.
    """
    try:
        return load(state_dict, *args, **kwargs)
    except RuntimeError as error:
        differences = [line.strip() for line in str(error).splitlines()[1:]]  # torch lists them below a headline
        first = textwrap.shorten(differences[0].rstrip("."), 200, placeholder=" ...")
        raise UserError(
            f"the checkpoint is of another model (differences: {len(differences)}, the first: {first}): "
            "check --arch, the sizes and the vocabulary that it was trained with"
        ) from error
