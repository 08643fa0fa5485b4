"""Build models from the options of checkpoints: a failure names the checkpoint, and an override has an effect.

fairseq has no hook for it. ``loading.install`` puts ``load_models`` in place of the function through which fairseq's
commands build the models of checkpoints.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils

from mla_fairseq.checkpoints import check_exists
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.checks import MLAModel
from mla_fairseq.models.overrides import check_fixed, require_dictionary

_load = checkpoint_utils.load_model_ensemble_and_task


def load_models(
    filenames: Sequence[str], arg_overrides: Mapping[str, Any] | None = None, task: Any = None, *more: Any, **flags: Any
) -> tuple[list[Any], Any, Any]:
    """Build the models of checkpoints as fairseq's function of this name does: models, options, task.

    Raises:
        UserError: a file is missing, its options make no model, or an override has no effect on it.
    """
    with user_errors():
        overrides = require_dictionary(arg_overrides)
        check_files(filenames)
        if task is not None:  # fairseq-validate has none, and overrides with all its flags
            check_fixed(overrides)
    models, cfg = [], None
    for path in filenames:
        with building(path):
            found, cfg, task = _load([path], overrides, task, *more, **flags)
        if isinstance(found[0], MLAModel):
            with user_errors(f"{path}: "):
                check_effect(found[0], overrides)
        models += found
    return models, cfg, task


def check_files(paths: Sequence[str]) -> None:
    """Check that the files of checkpoints exist.

    Raises:
        ValueError: one does not, or has no name.
    """
    for path in paths:
        if not path:
            raise ValueError(f"the list of checkpoints has an empty name ({':'.join(paths)!r}): remove a colon")
        check_exists(Path(path))


@contextmanager
def building(path: object) -> Iterator[None]:
    """Report a failure to build the model of a checkpoint; errors for the user pass through.

    Raises:
        UserError: the model cannot be built.
    """
    try:
        yield
    except Exception as error:  # any type: fairseq and torch check few of the options that they are given
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        raise UserError(
            f"{path} has options that make no model, or weights of another one ({reason}): give a checkpoint that "
            "fairseq-train saved, or correct --model-overrides"
        ) from error


def check_effect(model: MLAModel, overrides: Mapping[str, Any], flag: str = "--model-overrides") -> None:
    """Check that each length that an override sets is one that the model uses; ``flag`` gives the overrides.

    Raises:
        ValueError: it is not.
    """
    rule = getattr(getattr(model, "decoder", None), "length_rule", None)
    of_encoder = getattr(getattr(model, "encoder", None), "lengths", None)
    names = ("target_length", "target_length_ratio", "target_length_fixed", "source_length")
    for option in (name for name in names if name in overrides):
        reason = None
        if rule is None and not (of_encoder and option == "source_length"):
            reason = "no attention of the model measures positions against lengths"
        elif rule and option.startswith("target_length_") and "target_length" not in overrides:
            needed, rules = option.removeprefix("target_length_"), {rule.options.target_length, rule.train_rule}
            reason = None if needed in rules else f"target_length is {rule.options.target_length!r}"
        if reason:
            raise ValueError(f"{flag} names {option!r}, which has no effect, because {reason}: remove it")
