"""The stages of each kind of recipe, in order: what each runs, what it depends on, what it leaves behind."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mla_fairseq.evaluation import recognition
from mla_fairseq.recipes import commands, progress, scores
from mla_fairseq.recipes.commands import Command, Paths, split_variable
from mla_fairseq.recipes.keys import default_of
from mla_fairseq.recipes.schema import KINDS, Recipe

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
        depends: sections and section.keys of the recipe that the result depends on.
        after: the stage whose result this one reads; done again after that one was.
        outputs: files without which it is not done.
        reset: deletes its results, for ``--redo``.
        watch: progress display for the program's lines.
        echo: show the program's own output (it has a progress bar).
        refuse: how to go on when options changed; empty = the stage is simply done again.
        growable: options that may grow: the stage then continues instead.
    """

    name: str
    command: Callable[[Paths, bool], Command | None]
    check: Callable[[Paths], None] = _nothing
    work: Callable[[Paths], None] = _nothing
    depends: tuple[str, ...]
    after: str | None
    outputs: Callable[[Paths], list[Path]]
    reset: Callable[[Paths], None] = _nothing
    watch: Callable[[Paths], progress.Watch] = lambda paths: progress.silent()
    echo: bool = False
    refuse: str = ""
    growable: tuple[str, ...] = ()

    def applies(self, paths: Paths) -> bool:
        """False where this recipe needs nothing from this stage."""
        return self.work is not _nothing or self.command(paths, True) is not None

    def options(self, recipe: Recipe) -> Options:
        """Flat ``section.key: value`` of all that the result depends on; folders by name, so that they may move."""
        return {
            f"{section}.{key}": _fold(value, recipe.variables)
            for section in KINDS[recipe.kind]
            for key, value in dataclasses.asdict(getattr(recipe, section)).items()
            if section in self.depends or f"{section}.{key}" in self.depends
        }


def defaults(recipe: Recipe) -> Options:
    """What a key that an older version did not know is taken to have been."""
    known = [(section, key) for section, cls in KINDS[recipe.kind].items() for key in dataclasses.fields(cls)]
    return {f"{section}.{key.name}": default_of(key) for section, key in known}


def _fold(value: Any, variables: Mapping[str, str]) -> Any:
    name, rest = split_variable(value, variables) if isinstance(value, str) else ("", value)
    return f"${{{name}}}{rest}" if name else value


def _check_start(paths: Paths) -> None:
    for key in ("load_pretrained_encoder_from", "finetune_from_model"):
        start = getattr(paths.recipe.model, key, None)
        if start and not Path(start).is_file():
            recipe = Path(paths.recipe.source).with_name(f"{Path(start).parent.name}.yaml")
            first = f"run {recipe} first" if recipe.is_file() else "train it first"
            raise ValueError(
                f"model.{key} is {start}, which does not exist: {first}, or start from nothing with "
                f"--set model.{key}=null."
            )


def _check_subset(paths: Paths) -> None:
    """Once the data are prepared: is there the set that is to be decoded?"""
    recipe = paths.recipe
    if not paths.manifest(recipe.data.train).is_file() or paths.manifest(recipe.decode.subset).is_file():
        return
    there = sorted(path.stem.removesuffix(recipe.data.subset("")) for path in paths.manifests.glob("*.tsv"))
    raise ValueError(f"decode.subset is '{recipe.decode.subset}', but must be one of {', '.join(there)}.")


def _check_listener(paths: Paths) -> None:
    _check_subset(paths)
    if paths.recipe.decode.recogniser:
        recognition.check()


def _forget_training(paths: Paths) -> None:
    shutil.rmtree(paths.checkpoints, ignore_errors=True)
    paths.log("train").unlink(missing_ok=True)


_PREPARE_KEYS = tuple(
    f"data.{key}"
    for key in ("root", "pair", "task", "vocab_type", "vocab_size", "vocab", "cmvn", "specaugment", "extra")
)

_VOICE_KEYS = tuple(f"data.{key}" for key in ("root", "folder", "speaker", "unit", "language", "extra"))

_CORPUS = Stage(
    name="corpus",
    command=lambda paths, cpu: commands.make_corpus(paths),
    depends=("data.root", "data.make"),
    after=None,
    outputs=lambda paths: [paths.recipe.data.source],
    echo=True,
)
_PREPARE = Stage(
    name="prepare",
    command=lambda paths, cpu: commands.prepare(paths),
    depends=_PREPARE_KEYS,
    after="corpus",
    work=_check_subset,
    outputs=lambda paths: [paths.manifest(paths.recipe.data.train), paths.manifest(paths.recipe.data.valid)],
    reset=lambda paths: shutil.rmtree(paths.prepared, ignore_errors=True),
    echo=True,
    refuse="name the data otherwise (--set data.corpus=...), or prepare afresh with --redo prepare",
)
_TRAIN = Stage(
    name="train",
    command=commands.train,
    check=_check_start,
    depends=("data", "model", "train"),
    after="prepare",
    outputs=lambda paths: [paths.checkpoints / "checkpoint_last.pt"],
    reset=_forget_training,
    watch=progress.training,
    refuse="give this run another --name, or train afresh with --redo train",
    growable=("train.max_update",),
)
_AVERAGE = Stage(
    name="average",
    command=lambda paths, cpu: commands.average(paths),
    depends=("average",),
    after="train",
    outputs=lambda paths: [paths.decoded_checkpoint],
)
_DECODE = Stage(
    name="decode",
    command=commands.decode,
    check=_check_subset,
    depends=("average", "decode"),
    after="average",
    outputs=lambda paths: [paths.generated],
    watch=progress.decoding,
)
_SPEAK = Stage(
    name="decode",
    command=commands.synthesize,
    check=_check_listener,
    depends=("average", "decode"),
    after="average",
    outputs=lambda paths: [paths.spoken / "scores.json"],
    reset=lambda paths: shutil.rmtree(paths.spoken, ignore_errors=True),
    echo=True,
)

STAGES: dict[str, tuple[Stage, ...]] = {
    "translation": (
        _CORPUS,
        _PREPARE,
        _TRAIN,
        _AVERAGE,
        _DECODE,
        Stage(
            name="score",
            command=lambda paths, cpu: None,
            work=scores.write_scores,
            depends=("score",),
            after="decode",
            outputs=lambda paths: [paths.result],
        ),
        Stage(
            name="simul",
            command=commands.simul,
            depends=("average", "decode", "score", "simul"),
            after="average",
            outputs=lambda paths: [paths.simul / "points.tsv"],
            reset=lambda paths: shutil.rmtree(paths.simul, ignore_errors=True),
            echo=True,
        ),
    ),
    "speech": (
        _CORPUS,
        dataclasses.replace(_PREPARE, command=lambda paths, cpu: commands.prepare_voice(paths), depends=_VOICE_KEYS),
        _TRAIN,
        _AVERAGE,
        _SPEAK,
        dataclasses.replace(
            _SPEAK,
            name="forced",
            command=lambda paths, cpu: commands.synthesize(paths, cpu, forced=True),
            after="decode",
            outputs=lambda paths: [paths.forced / "scores.json"],
            reset=lambda paths: shutil.rmtree(paths.forced, ignore_errors=True),
        ),
        Stage(
            name="score",
            command=lambda paths, cpu: None,
            work=scores.write_speech_scores,
            depends=(),
            after="forced",
            outputs=lambda paths: [paths.result],
        ),
    ),
}
"""By the kind of recipe."""
