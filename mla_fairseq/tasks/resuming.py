"""Save checkpoints completely or not at all, and resume a training from its newest whole checkpoint.

fairseq copies each checkpoint to ``checkpoint_last.pt`` in place, and resumes from that file only: not at all if the
training was killed during the copy, or if its disk was full.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from fairseq.trainer import Trainer
from torch import distributed

from mla_fairseq.checkpoints import load_checkpoint, write_checkpoint
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.files import MISSING, replacing, unusable
from mla_fairseq.models.checks import LAST
from mla_fairseq.tasks.starting import check_metric, clear_start, lock_folder

log = logging.getLogger(__name__)
_BEST = "checkpoint_best.pt"
_NUMBERED = re.compile(r"checkpoint_?(\d+)(?:_(\d+))?\.pt")


def save_whole_checkpoints() -> None:
    """Let fairseq write and copy checkpoints under a temporary name first."""
    save, copy = checkpoint_utils.torch_persistent_save, PathManager.copy

    def save_whole(state: Any, path: str, async_write: bool = False) -> None:
        if async_write or not PathManager.supports_rename(path):
            save(state, path, async_write)
            return
        with _saving(path) as part:  # not as fairseq, which tries three times to append to a full disk
            write_checkpoint(state, part)

    def copy_whole(source: str, path: str, overwrite: bool = False) -> bool:
        if not PathManager.supports_rename(path):
            return copy(source, path, overwrite)
        with _saving(path) as part:
            shutil.copyfile(source, part)
        return True

    checkpoint_utils.torch_persistent_save = save_whole
    PathManager.copy = staticmethod(copy_whole)


def start_clearly() -> None:
    """Let ``fairseq-train`` check how it starts, and end if ``--max-update`` is reached then.

    fairseq alone would make one update more.
    """
    load, verify = checkpoint_utils.load_checkpoint, checkpoint_utils.verify_checkpoint_directory

    def load_or_end(cfg: Any, trainer: Trainer, **kwargs: Any) -> Any:
        check_metric(trainer.cfg, trainer.get_criterion())
        lock_folder(cfg, trainer)
        with clear_start(cfg, trainer):
            loaded = load(cfg, trainer, **kwargs)
        limit = trainer.cfg.optimization.max_update
        if 0 < limit <= trainer.get_num_updates():
            log.info("the training has %d updates, and --max-update is %d: finished", trainer.get_num_updates(), limit)
            raise SystemExit(0)
        return loaded

    def verify_or_end(folder: str) -> None:
        with user_errors("--save-dir cannot be written, give another: ", (OSError,)):
            verify(folder)

    checkpoint_utils.load_checkpoint = load_or_end
    checkpoint_utils.verify_checkpoint_directory = verify_or_end


@contextmanager
def _saving(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path for a checkpoint.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with replacing(Path(path)) as part:
            yield part
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot save {path} ({reason}): make room or correct --save-dir, and run the command again, which resumes "
            "from the newest whole checkpoint"
        ) from error


def choose_checkpoint(args: Namespace) -> None:
    """Make ``checkpoint_last.pt`` the newest whole checkpoint of a training that starts, and log a change.

    Nothing changes if another file is named by ``--restore-file``, or if the options are not those of a training. Of
    several processes the first does it, and the others wait.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    folder, restored = getattr(args, "save_dir", None), getattr(args, "restore_file", None)
    if folder is None or restored != LAST or getattr(args, "path", None) or getattr(args, "checkpoint_suffix", ""):
        return
    several = distributed.is_available() and distributed.is_initialized()
    if not several or distributed.get_rank() == 0:
        _repair(Path(folder))
    if several:
        distributed.barrier()


def _repair(folder: Path) -> None:
    """Copy the newest whole checkpoint of a folder to ``checkpoint_last.pt``, unless it is that file."""
    last = folder / LAST
    updates = _updates(last)
    if updates is None:
        if (fault := unusable(last)) not in ("", MISSING):
            raise UserError(f"{last} {fault}: delete it, or give another --save-dir")
        newest, reason = _newest(folder), "missing" if fault else "broken"
        if newest is None and any(os.path.lexists(path) for path in (last, folder / _BEST, *_numbered(folder))):
            raise UserError(
                f"{folder} has no whole checkpoint to resume from: give another --save-dir, or delete the broken files"
            )
    else:  # one that is later in updates but not in time was passed over by somebody who put an earlier one back
        newest, reason = _newest(folder, updates, last.stat().st_mtime_ns), "older"
    if newest is not None:
        log.warning("%s is %s: resuming from %s (update %d)", last, reason, newest[1], newest[0])
        PathManager.copy(str(newest[1]), str(last), overwrite=True)


def _newest(folder: Path, updates: int = -1, since: int = 0) -> tuple[int, Path] | None:
    """Return updates and path of the newest whole checkpoint after ``updates`` that was written after ``since``."""
    found = []
    for paths in (_numbered(folder), [folder / _BEST]):  # either may be newer
        later = (path for path in paths if path.is_file() and path.stat().st_mtime_ns > since)
        found += list(islice(((done, path) for path in later if (done := _updates(path)) is not None), 1))
    return max((one for one in found if one[0] > updates), default=None)


def _numbered(folder: Path) -> list[Path]:
    """Return the numbered checkpoints of a folder, newest first: ``checkpoint1.pt`` ends an epoch."""
    found = [(match, path) for path in folder.glob("checkpoint*.pt") if (match := _NUMBERED.fullmatch(path.name))]
    places = {path: (int(match[1]), float(match[2] or math.inf)) for match, path in found}
    return sorted(places, key=places.__getitem__, reverse=True)


def _updates(path: Path) -> int | None:
    """Return the number of updates of a checkpoint; ``None`` if it is missing or broken."""
    try:
        history = load_checkpoint(path).get("optimizer_history") or [{}]
    except ValueError:
        return None
    return int(history[-1].get("num_updates", 0))
