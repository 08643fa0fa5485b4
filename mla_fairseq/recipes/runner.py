"""Run a recipe's stages: skip what is done, continue what was stopped, refuse what would mix two experiments."""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mla_fairseq.files import read_json, write_json
from mla_fairseq.processes import locked
from mla_fairseq.recipes.check import check_files, check_gpu
from mla_fairseq.recipes.process import commit, execute, machine
from mla_fairseq.recipes.recipe import Recipe
from mla_fairseq.recipes.result import write_result
from mla_fairseq.recipes.stages import STAGES

logger = logging.getLogger(__name__)

Record = dict[str, Any]
"""A stage's last run: ``flags``, ``after`` (when the stage before it finished), ``command``, ``commit``, ``machine``,
``seconds`` and ``finished``, which is null while the stage runs and after it was stopped."""

_OF_THE_MACHINE = ("cpu", "device", "num_workers", "workers")
_MAY_GROW = ("max_update", "total_num_update")


def run_recipe(recipe: Recipe) -> None:
    """Run every stage that is not done, then write the run's result.

    Raises:
        ValueError: flags changed under results that are kept, a file or a GPU is missing, or a program failed.
    """
    records: dict[str, Record] = {}
    check_gpu(recipe)
    with _lock(recipe.run):
        for name in recipe.stages():
            check_files(recipe)
            records[name] = _step(recipe, name, max((one["finished"] for one in records.values()), default=""))
        write_result(recipe, records)


def check_run(recipe: Recipe) -> None:
    """Check files, the machine and the records of earlier runs as ``run_recipe`` does; run nothing.

    Raises:
        ValueError: see ``run_recipe``.
    """
    check_gpu(recipe)
    check_files(recipe)
    for name in recipe.stages():
        folder = recipe.makes(name) if STAGES[name].shared else recipe.run
        _reason(recipe, name, _read_record(folder / f".stage-{name}.json"), "")


def _step(recipe: Recipe, name: str, after: str) -> Record:
    """Run one stage unless it is done; return its record. A shared result depends on no stage of this run."""
    shared = STAGES[name].shared
    folder, after = (recipe.makes(name), "") if shared else (recipe.run, after)
    with _lock(folder) if shared else contextlib.nullcontext():
        path = folder / f".stage-{name}.json"
        old = _read_record(path)
        reason = _reason(recipe, name, old, after)
        logger.info("[%s] %s", name, reason or "done already")
        if old is not None and not reason:
            return old
        facts = {"command": recipe.show(name), "commit": commit(), "machine": machine(recipe.tree["train"]["cpu"])}
        record = {"flags": recipe.recorded[name], "after": after, **facts, "seconds": 0.0, "finished": None}
        before = old["seconds"] if old and name == "train" else 0.0  # a training continues, all others start again
        write_json(path, record)
        begin = time.monotonic()
        try:
            logger.info("  $ %s", record["command"])
            execute(recipe, name)
            record["finished"] = datetime.now(UTC).isoformat(timespec="microseconds")
        finally:
            record["seconds"] = round(before + time.monotonic() - begin, 1)
            write_json(path, record)
        return record


def _reason(recipe: Recipe, name: str, old: Record | None, after: str) -> str:
    """Return why the stage has to run; an empty text if it is done.

    Raises:
        ValueError: its results would be mixed with those of other flags.
    """
    if old is None:
        return "not done yet"
    new = _comparable(recipe, name, old["flags"])
    changes = _changes(old["flags"], new) + ([] if after in ("", old["after"]) else ["an earlier stage was run again"])
    if changes and STAGES[name].keep:
        other, folder = "this run another --name", recipe.run
        if STAGES[name].shared:
            other, folder = "the data another name (--set data=NAME)", recipe.makes(name)
        raise ValueError(f"{name} was run differently ({'; '.join(changes)}): give {other}, or delete {folder}")
    if changes:
        return f"again: {'; '.join(changes)}"
    if old["finished"] is None:
        return "not finished"
    if any(old["flags"].get(key) != new.get(key) for key in _MAY_GROW):
        return f"continued to {new['max_update']} updates"
    return "" if recipe.makes(name).exists() else f"again: {recipe.makes(name)} is missing"


def _read_record(path: Path) -> Record | None:
    """Return a stage's record; ``None`` if there is none.

    Raises:
        ValueError: the file is broken.
    """
    if not path.is_file():
        return None
    types = {"flags": dict, "after": str, "seconds": int | float, "finished": str | None}
    record = read_json(path)
    if isinstance(record, dict) and all(isinstance(record.get(key, ...), kind) for key, kind in types.items()):
        return record
    raise ValueError(f"{path} is not the record of a stage: copy it again, or delete it to run the stage again")


def _comparable(recipe: Recipe, name: str, old: dict[str, Any]) -> dict[str, Any]:
    """Return a stage's flags as its record has them; version 0.2 recorded the folder of all runs itself."""
    shown = recipe.shown[name]
    return {key: shown[key] if old.get(key) == shown[key] else value for key, value in recipe.recorded[name].items()}


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what differs, in words. A limit that grew is not a change, nor is a setting of the machine."""
    counts = [key for key in _MAY_GROW if isinstance(old.get(key), int) and isinstance(new.get(key), int)]
    free = {*_OF_THE_MACHINE, *(key for key in counts if new[key] > old[key])}
    keys = [key for key in {**old, **new} if key not in free and old.get(key) != new.get(key)]
    return [f"{key} was {old.get(key)}, is {new.get(key)}" for key in keys]


def _lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Return a lock of a folder, by a file beside it, because the folder may be deleted to run again."""
    return locked(folder.with_name(f".{folder.name}.lock"), folder, wait=True)
