"""Runs a recipe's stages: skips what is done, continues what was killed, refuses what would mix two experiments."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mla_fairseq.recipes import process
from mla_fairseq.recipes.commands import Command, Paths
from mla_fairseq.recipes.records import Record, commit, lock, machine, read_record, write_record
from mla_fairseq.recipes.schema import Recipe
from mla_fairseq.recipes.stages import STAGES, Stage, defaults

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """A recipe, where it writes, and whether it runs without a GPU."""

    paths: Paths
    cpu: bool

    @property
    def stages(self) -> tuple[Stage, ...]:
        return STAGES[self.paths.recipe.kind]

    def command(self, stage: Stage) -> Command | None:
        return stage.command(self.paths, self.cpu)

    def show(self, stage: Stage) -> str:
        command = self.command(stage)
        return command.show(self.shown_variables) if command else ""

    @property
    def shown_variables(self) -> dict[str, str]:
        """Variables that the user's shell has too; RUNS is only a name for ``out``."""
        return {name: value for name, value in self.paths.recipe.variables.items() if name != "RUNS"}


def context(recipe: Recipe, out: Path) -> Context:
    """Finds out whether there is a GPU to use."""
    return Context(Paths(recipe, out), cpu=_use_cpu(recipe.run.device))


def _use_cpu(device: str) -> bool:
    if device == "cpu":
        return True
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("run.device is 'cuda', but torch sees no GPU; take --set run.device=cpu, or auto.")
    return not available


def commands_of(context: Context) -> list[tuple[str, str]]:
    """(stage, command line) of the whole recipe, in order, to copy."""
    return [(stage.name, context.show(stage)) for stage in context.stages if context.show(stage)]


def run_stages(context: Context, names: Sequence[str] = (), redo: Sequence[str] = ()) -> None:
    """Runs the named stages (all when empty) in order.

    Args:
        context: recipe and machine.
        names: stages to run; those before them must be done.
        redo: stages to do again from scratch, their old results deleted first.

    Raises:
        ValueError: the recipe has no such stage, an earlier one is not done, options changed under a finished one, or
            a program failed.
    """
    known = [stage.name for stage in context.stages]
    for name in (*names, *redo):
        if name not in known:
            raise ValueError(f"{context.paths.recipe.source} has no stage {name}, only {', '.join(known)}.")
    wanted = {name for name in known if not names or name in (*names, *redo)}
    needed = _with_forerunners(context.stages, wanted)
    stamps: dict[str | None, str | None] = {None: None}
    with lock(context.paths.run / ".lock", wait=False) as held:
        _check_all(context, wanted)
        for stage in context.stages:
            stamps[stage.name] = stamps[stage.after]
            if stage.name in needed and stage.applies(context.paths):
                stamps[stage.name] = _step(
                    context, stage, stamps[stage.after], stage.name in wanted, stage.name in redo, held
                )


def _check_all(context: Context, wanted: set[str]) -> None:
    """Nobody should wait for hours to hear what is missing: before the first stage, every later one is asked."""
    for stage in context.stages:
        record = read_record(context.paths.record(stage.name))
        if stage.name in wanted and not (record and record.finished):
            stage.check(context.paths)


def _with_forerunners(stages: tuple[Stage, ...], names: set[str]) -> set[str]:
    """The stages and all those that they build upon."""
    found = set(names)
    for stage in reversed(stages):
        if stage.name in found and stage.after:
            found.add(stage.after)
    return found


def _step(context: Context, stage: Stage, stamp: str | None, wanted: bool, redo: bool, held: int) -> str | None:
    """One stage; returns when it was finished.  ``stamp``: when the stage before it was."""
    with contextlib.ExitStack() as stack:
        keep = [held]
        folder = context.paths.shared.get(stage.name)
        if folder and wanted:
            keep.append(stack.enter_context(lock(folder.with_name(f".{folder.name}.lock"), wait=True)))
        if redo:
            stage.reset(context.paths)
            context.paths.record(stage.name).unlink(missing_ok=True)
        record = read_record(context.paths.record(stage.name))
        reason = _why(context, stage, record, stamp)
        if reason and not wanted:
            raise ValueError(
                f"stage {stage.name} must be run first ({reason}): add it to --stage, or leave --stage out."
            )
        if reason:
            logger.info("[%s] %s", stage.name, reason)
            return _run(context, stage, record, stamp, tuple(keep))
        if wanted:
            logger.info("[%s] done already", stage.name)
        return record.finished


def _why(context: Context, stage: Stage, record: Record | None, stamp: str | None) -> str:
    """Why the stage must run now; empty where it is done."""
    if record is None:
        return "not done yet"
    options = _options(context, stage, stamp)
    changes = _changes({**defaults(context.paths.recipe), **record.options}, options, stage.growable)
    if changes and stage.refuse:
        raise ValueError(f"stage {stage.name} was run with other options: {'; '.join(changes)}; {stage.refuse}.")
    if changes:
        return f"again: {'; '.join(changes)}"
    if record.finished is None:
        return "not finished"
    if any(record.options.get(key) != options[key] for key in stage.growable):
        return "not yet at the new limit"
    missing = [path for path in stage.outputs(context.paths) if not path.exists()]
    return f"again: {missing[0]} is missing" if missing else ""


def _options(context: Context, stage: Stage, stamp: str | None) -> dict:
    return {**stage.options(context.paths.recipe), "result of the stage before": stamp}


def _changes(old: dict, new: dict, growable: tuple[str, ...]) -> list[str]:
    """What differs, in words; a growable number that grew is no change."""
    keys = [key for key in new if old.get(key) != new[key]]
    keys = [key for key in keys if not (key in growable and old.get(key) is not None and new[key] > old[key])]
    return [f"{key} was {old.get(key)!r}, is {new[key]!r}" for key in keys]


def _run(context: Context, stage: Stage, record: Record | None, stamp: str | None, keep: tuple[int, ...]) -> str:
    command, path = context.command(stage), context.paths.record(stage.name)
    before = record.seconds if record and stage.growable else 0.0  # these continue, all others start again
    record = Record(
        options=_options(context, stage, stamp),
        command=context.show(stage),
        seconds=before,
        machine=machine(context.paths.recipe.run.threads, context.cpu),
        commit=commit(),
    )
    write_record(path, record)
    begin = time.monotonic()
    try:
        if command:
            logger.info("  $ %s", record.command)
            _run_program(context, stage, command, keep)
        stage.work(context.paths)
        record.finished = datetime.now(UTC).isoformat(timespec="microseconds")  # also the result's identity
    finally:
        record.seconds = before + time.monotonic() - begin
        write_record(path, record)
    return record.finished


def _run_program(context: Context, stage: Stage, command: Command, keep: tuple[int, ...]) -> None:
    log = context.paths.log(stage.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as stream:
        stream.write(
            f"# session {datetime.now(UTC).isoformat(timespec='seconds')} {command.show(context.shown_variables)}\n"
        )
    with stage.watch(context.paths) as on_line:
        process.run(command, log, on_line, echo=stage.echo, keep=keep)
