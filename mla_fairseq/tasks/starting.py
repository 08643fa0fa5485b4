"""Start a training: lock its folder, and report in one line flags that do not fit each other or its checkpoint."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fairseq.criterions import FairseqCriterion
from fairseq.logging import metrics
from fairseq.models import BaseFairseqModel
from fairseq.trainer import Trainer

from mla_fairseq.checkpoints import load_checkpoint, saved_options
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.checks import LAST
from mla_fairseq.models.loading import choose_model
from mla_fairseq.processes import locked

OPTIMIZED = ("criterion", "optimizer", "fp16", "memory_efficient_fp16", "amp")
"""Flags on which the state of the optimizer depends."""

SHAPING = ("share_decoder_input_output_embed", "store_ema")
"""Flags on which it depends what a checkpoint contains."""

FAULTS = (ArithmeticError, AssertionError, LookupError, NameError, RuntimeError, TypeError, ValueError)
TRAINED = "a checkpoint of this training"  # for messages
_locks = ExitStack()  # held until the process ends


def lock_folder(cfg: Any, trainer: Trainer) -> None:
    """Lock the folder of a training until this process ends; of several processes the first does it.

    Args:
        cfg: fairseq's options of checkpoints.
        trainer: of the training.

    Raises:
        UserError: another training uses the folder, or no lock can be written there.
    """
    if not cfg.no_save and trainer.is_data_parallel_master:
        with user_errors("--save-dir: ", (ValueError, OSError)):
            _locks.enter_context(locked(Path(cfg.save_dir, ".lock"), Path(cfg.save_dir)))


@contextmanager
def clear_start(cfg: Any, trainer: Trainer) -> Iterator[None]:
    """Report why a training cannot start inside the block, in which fairseq loads its checkpoint.

    Args:
        cfg: fairseq's options of checkpoints.
        trainer: of the training.

    Raises:
        UserError: it cannot.
    """
    try:
        yield
    except FAULTS as error:
        lines = str(error).splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0]}"
        path = _start(cfg)
        if path is None:
            raise UserError(
                f"the training cannot start ({reason}): correct the flags of the optimizer or of --lr-scheduler "
                f"{trainer.cfg.lr_scheduler._name}"
            ) from error
        raise UserError(_difference(path, trainer.cfg, reason)) from error


def _start(cfg: Any) -> Path | None:
    """Return the checkpoint from which fairseq starts; ``None``: from none."""
    path = Path(cfg.save_dir, LAST) if cfg.restore_file == LAST else Path(cfg.restore_file)
    path = path if path.is_file() else Path(cfg.continue_once or cfg.finetune_from_model or "")
    return path if path.is_file() else None


def _difference(path: Path, cfg: Any, reason: str) -> str:
    """Return why a training with the options ``cfg`` cannot resume a checkpoint, and what to do."""
    weights = f"or start from its weights by --finetune-from-model {path} in another --save-dir"
    if "dataloader" in reason:
        return f"{path} was saved in an epoch of other data: use the same data, add --reset-dataloader, {weights}"
    saved = saved_options(load_checkpoint(path))
    found = {}
    for name in (*OPTIMIZED, *SHAPING, "lr_scheduler"):
        before, now = (getattr(options, name, None) or False for options in (saved, cfg.model))
        if before != now:
            found[name] = f"--{name.replace('_', '-')} {before}, now {now}"
    if not found:
        return f"{path} does not fit this command ({reason}): give the flags of its training, {weights}"
    if found.keys() & set(SHAPING):
        weights = "or train from scratch in another --save-dir"
    elif found.keys() & set(OPTIMIZED):
        weights = f"add --reset-optimizer, {weights}"
    else:
        weights = f"add --reset-lr-scheduler, {weights}"
    return f"{path} was trained with other flags ({'; '.join(found.values())}): give the same flags, {weights}"


def check_loadable(args: Any, model: BaseFairseqModel) -> None:
    """Check that a checkpoint of a training can be loaded again.

    Args:
        args: the options of the model, a namespace or a dictionary.
        model: the model to train.

    Raises:
        ValueError: it cannot.
    """
    options = dict(vars(args) if isinstance(args, Namespace) else args)
    name = options.get("_name") or options.get("arch")
    state = {"model": model.state_dict(), "cfg": {"model": options, "task": {"_name": options.get("task")}}}
    choose_model(TRAINED, state, str(name), {})


class _Logged(dict[str, Any]):
    """What a batch logs if it logs everything: each number is 1."""

    def get(self, key: str, default: Any = None) -> Any:
        return 1

    def __getitem__(self, key: str) -> Any:
        return 1

    def __contains__(self, key: object) -> bool:
        return True


def check_metric(cfg: Any, criterion: FairseqCriterion) -> None:
    """Check that validation has the metric by which a training chooses its best checkpoint.

    Args:
        cfg: all options of fairseq.
        criterion: of the training.

    Raises:
        UserError: it has not.
    """
    if cfg.dataset.disable_validation:
        return
    try:
        with metrics.aggregate(new_root=True) as found:
            type(criterion).reduce_metrics([_Logged()])
    except Exception:  # a criterion of a --user-dir may log something other than numbers
        return
    names, wanted = set(found.get_smoothed_values()), cfg.checkpoint.best_checkpoint_metric
    if wanted not in names:
        raise UserError(
            f"--best-checkpoint-metric {wanted} is not computed in validation: use one of {', '.join(sorted(names))}"
        )
