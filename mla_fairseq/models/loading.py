"""Load checkpoints in fairseq's commands as data: no code of a file runs, and overrides reach every checkpoint.

torch loads only tensors and plain values, but fairseq then builds the model, the task and the criterion that the file
names, and several of those evaluate their options as Python. So a file may name only what evaluates none: the models of
this package, the stock ones in ``stock.OURS``, and what a ``--user-dir`` registered.

fairseq has no hook for it. ``install`` puts ``load_checkpoint_to_cpu`` in place of fairseq's function of that name,
through which its commands load every checkpoint.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.dataclass.utils import overwrite_args_by_name
from fairseq.models import ARCH_MODEL_NAME_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_REGISTRY
from omegaconf import OmegaConf

from mla_fairseq.checkpoints import load_training
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.building import load_models
from mla_fairseq.models.language import check_language_model, for_fusion, set_language_task
from mla_fairseq.models.overrides import check_overrides, require_dictionary
from mla_fairseq.models.saved_options import check_saved
from mla_fairseq.models.stock import OURS, adopt, as_ours, stock_model

TASKS = ("speech_to_text", "text_to_speech")
CRITERIONS = ("cross_entropy", "label_smoothed_cross_entropy", "tacotron2")
"""Tasks and criterions of fairseq that a file may name: they evaluate no option."""


def install() -> None:
    """Make fairseq load every checkpoint by ``load_checkpoint_to_cpu``, and build its model by ``load_models``."""
    checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu
    checkpoint_utils.load_model_ensemble_and_task = load_models


def load_checkpoint_to_cpu(
    path: str, arg_overrides: Mapping[str, Any] | None = None, load_on_all_ranks: bool = False
) -> dict[str, Any]:
    """Load a checkpoint as fairseq's function of this name does, after checks of what fairseq will build from it.

    ``_name`` or ``arch`` in ``arg_overrides`` changes the architecture, whichever version of fairseq wrote the file.

    Raises:
        UserError: the file cannot be loaded or trusted, or an override has no effect.
    """
    with user_errors():
        state, name = load_training(Path(path))
        overrides = require_dictionary(arg_overrides)
        if for_fusion(name, overrides):  # the other overrides are those of the translation model
            return _language_model(path, state, name, overrides["data"])
        return _upgrade(path, state, name, overrides)


def load_as_ours(path: Path) -> dict[str, Any]:
    """Return a checkpoint, with the options of a model of this package where it is a stock one.

    Raises:
        ValueError: the file cannot be loaded or trusted.
    """
    state, name = load_training(path)
    choose_model(path, state, name, as_ours(name))
    return state


def load_model(checkpoint: Path, overrides: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the model of a checkpoint and its task, for programs other than fairseq's commands.

    A stock model is loaded as one of this package.

    Raises:
        ValueError: the checkpoint cannot be loaded or trusted, or an override has no effect.
    """
    try:
        state, name = load_training(checkpoint)
        overrides = require_dictionary(overrides)
        state = _upgrade(checkpoint, state, name, as_ours(name) | overrides)
        models, _, task = load_models([str(checkpoint)], overrides, state=state)
    except UserError as error:  # a SystemExit, which would end the program of the caller
        raise ValueError(str(error).removeprefix("error: ")) from error
    return models[0], task


def choose_model(path: object, state: dict[str, Any], name: str, overrides: dict[str, Any]) -> None:
    """Set the architecture asked for and the overrides in a checkpoint, and check what fairseq will build from it.

    Args:
        path: the file, for messages.
        state: its content, changed in place.
        name: the architecture that it names.
        overrides: options to change; the names of an architecture are removed.

    Raises:
        ValueError: the architecture is unknown or not supported, its options are not safe, or an override has no
            effect.
    """
    with _readable(path, clear=(ValueError,)):
        _choose_model(path, state, name, overrides)


def _choose_model(path: object, state: dict[str, Any], name: str, overrides: dict[str, Any]) -> None:
    options, new = _options(state), _wanted(overrides, name)
    if stock_model(new) and new not in ARCH_MODEL_REGISTRY:
        new = OURS[str(stock_model(new))]  # fairseq has it among its examples, which are not installed
    check_trusted(path, new)
    check_overrides(new, state, overrides)
    if stock_model(name) and not stock_model(new):
        adopted = Namespace(**options)
        adopt(adopted, name)
        options |= vars(adopted)
    options |= overrides
    for key in ("_name", "arch") if isinstance(_holder(state), Namespace) else ("_name",):
        options[key] = new
    for key in options.keys() & {"load_pretrained_encoder_from", "load_pretrained_decoder_from"}:
        options[key] = overrides.get(key)  # the checkpoint has these weights, and the initial file may be gone
    check_parts(path, state, new, overrides)
    if not _registered_by_user(ARCH_MODEL_REGISTRY[new]):
        check_saved(path, options, state["model"], new)


def check_trusted(path: object, name: str) -> None:
    """Check that the model that a checkpoint names is one of this package, of a ``--user-dir``, or supported.

    Raises:
        ValueError: it is not.
    """
    if stock_model(name):
        return
    if name not in ARCH_MODEL_REGISTRY:
        raise ValueError(f"{path} has an unknown architecture ({name}): add its --user-dir")
    if not _trusted(ARCH_MODEL_REGISTRY, name, ()):
        raise ValueError(
            f"{path} has the architecture {name}, which is not supported, because a model of fairseq may evaluate "
            f"options as code: give a model of mla_fairseq or one of {', '.join(OURS)}"
        )


def check_parts(path: object, state: dict[str, Any], name: str, overrides: Mapping[str, Any]) -> None:
    """Replace a task and a criterion that a checkpoint of the architecture ``name`` must not name.

    The task becomes the one of its model here. The criterion is removed, because only ``fairseq-validate`` needs it, or
    if an override names another.

    Raises:
        ValueError: the model is of a ``--user-dir``, which has no task here.
    """
    task = "text_to_speech_mla" if "tts" in ARCH_MODEL_NAME_REGISTRY[name] else "speech_to_text_mla"
    if not _all_trusted(state, "task", TASK_REGISTRY, TASKS):
        if _registered_by_user(ARCH_MODEL_REGISTRY[name]):
            raise ValueError(f"{path} has a task that is not supported: use one of this package or of your --user-dir")
        _options(state)["task"] = task
        if state.get("args") is None:
            state["cfg"]["task"] = Namespace(**_options(state))
    # fairseq overrides options inside a criterion, but not the criterion itself, unless there is none
    chosen = state.get("args") is None and "criterion" in overrides
    if chosen or not _all_trusted(state, "criterion", CRITERION_REGISTRY, CRITERIONS):
        if state.get("args") is None:
            state["cfg"]["criterion"] = None
        else:
            _options(state).pop("criterion", None)


def _wanted(overrides: dict[str, Any], name: str) -> str:
    """Return the architecture to build, and remove it from the overrides; ``name`` is the one in the file."""
    wanted = {str(overrides.pop(key)) for key in ("_name", "arch") if key in overrides} or {name}
    if len(wanted) > 1:
        raise ValueError(f"--model-overrides names two architectures ({', '.join(sorted(wanted))}): name one")
    return wanted.pop()


def _holder(state: dict[str, Any]) -> Any:
    return state["args"] if state.get("args") is not None else state["cfg"]["model"]


def _options(state: dict[str, Any]) -> dict[str, Any]:
    """Return the model's options in a checkpoint, to be changed in place."""
    holder = _holder(state)
    return vars(holder) if isinstance(holder, Namespace) else holder


def _all_trusted(state: dict[str, Any], part: str, registry: Mapping[str, type], stock: Collection[str]) -> bool:
    """Return whether every name that fairseq may choose a task or criterion by is one that a file may name."""
    if state.get("args") is not None:
        names = {getattr(state["args"], part, None)}
    else:
        section = state["cfg"].get(part)
        section = vars(section) if isinstance(section, Namespace) else section
        names = {section.get(key) for key in (part, "_name")} - {None} if isinstance(section, dict) else set()
    return bool(names) and all(isinstance(name, str) and _trusted(registry, name, stock) for name in names)


def _trusted(registry: Mapping[str, type], name: str, stock: Collection[str]) -> bool:
    return name in registry and (name in stock or not _of_fairseq(registry[name]))


def _of_fairseq(found: type) -> bool:
    return found.__module__.partition(".")[0] in ("fairseq", "examples")


def _registered_by_user(found: type) -> bool:
    return not _of_fairseq(found) and not found.__module__.startswith("mla_fairseq.")


def _upgrade(path: object, state: dict[str, Any], name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of the architecture ``name`` in fairseq's present form, checked and with the overrides."""
    choose_model(path, state, name, overrides)
    return _present(path, state, overrides)


def _language_model(path: object, state: dict[str, Any], name: str, data: object) -> dict[str, Any]:
    """Return a language model's checkpoint in fairseq's present form, checked, with the symbols of a data folder."""
    with _readable(path, clear=(ValueError,)):
        check_language_model(path, _options(state), data)
        check_saved(path, _options(state), state["model"], name)
        set_language_task(state, data)
    return _present(path, state, {})


def _present(path: object, state: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint in fairseq's present form, with the overrides."""
    # fairseq's example of simultaneous translation, where installed, registers an option that hydra refuses in args
    REGISTRIES.pop("simul_type", None)
    with _readable(path):
        if state.get("args") is None:
            state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
            overwrite_args_by_name(state["cfg"], overrides)
        return checkpoint_utils._upgrade_state_dict(state)


@contextmanager
def _readable(path: object, clear: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Report options that are not what fairseq writes; exceptions of the types ``clear`` have their own message."""
    try:
        yield
    except clear:
        raise
    except Exception as error:  # a dozen types of hydra, omegaconf, fairseq and Python
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} has options that fairseq cannot read ({reason}): give another file") from error
