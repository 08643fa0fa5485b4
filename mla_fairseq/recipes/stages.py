"""The stages of a recipe, in order: what each runs, what it depends on, what it leaves behind.

A later stage of another kind (a simultaneous evaluation, say) is one more entry of :data:`STAGES`.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mla_fairseq.recipes import commands, progress, scores
from mla_fairseq.recipes.commands import Command, Paths

Options = dict[str, Any]


def _nothing(paths: Paths) -> None:
    """No work inside this process."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe.

    Attributes:
        name: what the user calls it.
        command: the program to run (CPU or not), or None where there is nothing to run.
        check: raises ValueError where something is missing that the program would stumble over.
        work: done in this process, after the program.
        sections: sections of the recipe that the result depends on.
        after: the stage whose result this one reads; done again after that one was.
        folder: where its record lies.
        outputs: files without which it is not done.
        reset: deletes its results, for ``--redo``.
        watch: progress display for the program's lines.
        echo: show the program's own output (it has a progress bar).
        refuse: how to go on when options changed; empty = the stage is simply done again.
        growable: options that may grow: the stage then continues instead.
        shared: several recipes use its result, and wait for each other.
    """

    name: str
    command: Callable[[Paths, bool], Command | None]
    check: Callable[[Paths], None] = _nothing
    work: Callable[[Paths], None] = _nothing
    sections: tuple[str, ...]
    after: str | None
    folder: Callable[[Paths], Path] = lambda paths: paths.run
    outputs: Callable[[Paths], list[Path]]
    reset: Callable[[Paths], None] = _nothing
    watch: Callable[[Paths], progress.Watch] = lambda paths: progress.silent()
    echo: bool = False
    refuse: str = ""
    growable: tuple[str, ...] = ()
    shared: bool = False

    def applies(self, paths: Paths) -> bool:
        """False where this recipe needs nothing from this stage."""
        return self.work is not _nothing or self.command(paths, True) is not None

    def record(self, paths: Paths) -> Path:
        return self.folder(paths) / f".stage-{self.name}.json"

    def options(self, paths: Paths) -> Options:
        """Flat ``section.key: value`` of all that the result depends on."""
        flat: Options = {}
        for section in self.sections:
            for key, value in dataclasses.asdict(getattr(paths.recipe, section)).items():
                flat[f"{section}.{key}"] = value
        return flat


def _check_pretrained(paths: Paths) -> None:
    start = paths.recipe.model.load_pretrained_encoder_from
    if start and not Path(start).is_file():
        raise ValueError(
            f"model.load_pretrained_encoder_from is {start}, which does not exist: run the recipe that makes it first "
            f"(its run folder is {Path(start).parent}), or --set model.load_pretrained_encoder_from=null."
        )


def _forget_training(paths: Paths) -> None:
    shutil.rmtree(paths.checkpoints, ignore_errors=True)
    paths.log("train").unlink(missing_ok=True)


STAGES: tuple[Stage, ...] = (
    Stage(
        name="corpus",
        command=lambda paths, cpu: commands.make_corpus(paths),
        sections=("data",),
        after=None,
        folder=lambda paths: paths.corpus,
        outputs=lambda paths: [paths.corpus / paths.recipe.data.pair],
        echo=True,
        shared=True,
    ),
    Stage(
        name="prepare",
        command=lambda paths, cpu: commands.prepare(paths),
        sections=("data",),
        after="corpus",
        folder=lambda paths: paths.prepared,
        outputs=lambda paths: [paths.manifest(paths.recipe.data.train), paths.manifest(paths.recipe.data.valid)],
        reset=lambda paths: shutil.rmtree(paths.prepared, ignore_errors=True),
        echo=True,
        refuse="name the data otherwise (--set data.corpus=...), or prepare afresh with --redo prepare",
        shared=True,
    ),
    Stage(
        name="train",
        command=commands.train,
        check=_check_pretrained,
        sections=("data", "model", "train"),
        after="prepare",
        outputs=lambda paths: [paths.checkpoints / "checkpoint_last.pt"],
        reset=_forget_training,
        watch=progress.training,
        refuse="give this run another --name, or train afresh with --redo train",
        growable=("train.max_update",),
    ),
    Stage(
        name="average",
        command=lambda paths, cpu: commands.average(paths),
        sections=("average",),
        after="train",
        outputs=lambda paths: [paths.decoded_checkpoint],
    ),
    Stage(
        name="decode",
        command=commands.decode,
        sections=("average", "decode"),
        after="average",
        outputs=lambda paths: [paths.generated],
        watch=progress.decoding,
    ),
    Stage(
        name="score",
        command=lambda paths, cpu: None,
        work=scores.write_scores,
        sections=("score",),
        after="decode",
        outputs=lambda paths: [paths.result],
    ),
)
