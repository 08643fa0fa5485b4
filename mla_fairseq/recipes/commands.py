"""The plain commands behind a recipe: argument lists to run, and lines to copy."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mla_fairseq.recipes.schema import Recipe

_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Command:
    """One program call.  ``stdout``: the file its output becomes, if the output is the result."""

    args: tuple[str, ...]
    stdout: Path | None = None
    threads: int | None = None

    def show(self, variables: Mapping[str, str]) -> str:
        """A line for the shell; leading values of ``variables`` are written as ``"$NAME"`` again."""
        words = [_quote(arg, variables) for arg in self.args]
        if self.threads:
            words.insert(0, f"OMP_NUM_THREADS={self.threads}")
        if self.stdout:
            words += [">", _quote(str(self.stdout), variables)]
        return " ".join(words)


def _quote(arg: str, variables: Mapping[str, str]) -> str:
    name, rest = split_variable(arg, variables)
    return (f'"${name}"' if name else "") + (shlex.quote(rest) if rest or not name else "")


def split_variable(text: str, variables: Mapping[str, str]) -> tuple[str, str]:
    """The variable whose folder ``text`` begins with, and what follows; no name where there is none."""
    for name, value in variables.items():
        folder = value.rstrip("/")
        if folder and (text == folder or text.startswith(folder + "/")):
            return name, text[len(folder) :]
    return "", text


@dataclass(frozen=True)
class Paths:
    """Where a recipe's files lie.  ``out`` holds all runs and, under ``data``, what they share."""

    recipe: Recipe
    out: Path

    @property
    def run(self) -> Path:
        return self.out / self.recipe.name

    @property
    def corpus(self) -> Path:
        return Path(self.recipe.data.root)

    @property
    def manifests(self) -> Path:
        return self.prepared / self.recipe.data.manifests

    @property
    def prepared(self) -> Path:
        return self.out / "data" / self.recipe.data.prepared

    @property
    def checkpoints(self) -> Path:
        return self.run / "checkpoints"

    @property
    def averaged(self) -> Path:
        return self.run / "checkpoint_average.pt"

    @property
    def decoded_checkpoint(self) -> Path:
        return self.averaged if self.recipe.average.last else self.checkpoints / "checkpoint_best.pt"

    @property
    def generated(self) -> Path:
        return self.run / f"generate-{self.recipe.decode.subset}.txt"

    @property
    def spoken(self) -> Path:
        return self.run / f"spoken-{self.recipe.decode.subset}"

    @property
    def forced(self) -> Path:
        """As :attr:`spoken`, each step upon the recorded ones."""
        return self.run / f"forced-{self.recipe.decode.subset}"

    @property
    def simul(self) -> Path:
        return self.run / "simul"

    @property
    def result(self) -> Path:
        return self.run / "result.json"

    def subset(self, split: str) -> str:
        return self.recipe.data.subset(split)

    def manifest(self, split: str) -> Path:
        return self.manifests / f"{self.subset(split)}.tsv"

    def log(self, stage: str) -> Path:
        return self.run / f"{stage}.log"

    @property
    def shared(self) -> dict[str, Path]:
        """Stages whose results other recipes use too, and where these lie."""
        return {"corpus": self.corpus, "prepare": self.prepared}

    def record(self, stage: str) -> Path:
        """What is known of a stage's last run; it lies beside its results."""
        return self.shared.get(stage, self.run) / f".stage-{stage}.json"

    def records(self) -> dict[str, Path]:
        """The records that exist, by stage."""
        found = {stage: self.record(stage) for stage in self.shared}
        found |= {path.stem.removeprefix(".stage-"): path for path in sorted(self.run.glob(".stage-*.json"))}
        return {stage: path for stage, path in found.items() if path.is_file()}


def flags(section: Any) -> list[str]:
    """Command-line flags of a section's dataclass, in the order of its fields, then of its ``extra``."""
    words: list[str] = []
    for known in dataclasses.fields(section):
        flag = known.metadata["flag"]
        if flag is not None:
            words += _flag(flag or "--" + known.name.replace("_", "-"), getattr(section, known.name))
    for name, value in getattr(section, "extra", {}).items():
        words += _flag("--" + name.lstrip("-").replace("_", "-"), value)
    return words


def _flag(flag: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    return [flag, f"{value:g}" if isinstance(value, float) else str(value)]


def make_corpus(paths: Paths) -> Command | None:
    """The command that makes the corpus, or None where the user brings it."""
    make = paths.recipe.data.make
    return Command(tuple(shlex.split(make)), threads=paths.recipe.run.threads) if make else None


def prepare(paths: Paths) -> Command:
    args = ["python", _script("prep_mustc.py"), *flags(paths.recipe.data), "--output", str(paths.prepared)]
    return Command(tuple(args), threads=paths.recipe.run.threads)


def prepare_voice(paths: Paths) -> Command:
    data = paths.recipe.data
    args = ["python", _script("prep_ljspeech.py"), str(data.source), *flags(data), "--output", str(paths.prepared)]
    return Command(tuple(args), threads=paths.recipe.run.threads)


def train(paths: Paths, cpu: bool) -> Command:
    recipe = paths.recipe
    args = ["fairseq-train", str(paths.manifests), *_task(recipe)]
    args += ["--train-subset", paths.subset(recipe.data.train), "--valid-subset", paths.subset(recipe.data.valid)]
    if recipe.train.lr_scheduler == "polynomial_decay" and "total_num_update" not in recipe.train.extra:
        args += ["--total-num-update", str(recipe.train.max_update)]  # or it would fall too early, or never to nothing
    args += [*flags(recipe.model), *flags(recipe.train), "--save-dir", str(paths.checkpoints), "--log-format", "json"]
    return Command((*args, *_machine(recipe, cpu)), threads=recipe.run.threads)


def average(paths: Paths) -> Command | None:
    """None where the best checkpoint is decoded as it is."""
    if not paths.recipe.average.last:
        return None
    args = ["python", _script("average_checkpoints.py"), *flags(paths.recipe.average)]
    return Command((*args, "--inputs", str(paths.checkpoints), "--output", str(paths.averaged)))


def decode(paths: Paths, cpu: bool) -> Command:
    recipe = paths.recipe
    args = ["fairseq-generate", str(paths.manifests), *_task(recipe)]
    args += [
        "--gen-subset",
        paths.subset(recipe.decode.subset),
        "--path",
        str(paths.decoded_checkpoint),
        *flags(recipe.decode),
        "--scoring",
        "sacrebleu",
    ]
    return Command((*args, *_machine(recipe, cpu)), stdout=paths.generated, threads=recipe.run.threads)


def synthesize(paths: Paths, cpu: bool, forced: bool = False) -> Command:
    """``forced``: upon the recorded frames, to which no recogniser listens."""
    recipe = paths.recipe
    args = ["python", _script("synthesize.py"), str(paths.decoded_checkpoint), "--data", str(paths.manifests)]
    listener = [] if recipe.decode.recogniser is None else ["--recogniser", recipe.decode.recogniser]
    args += [*flags(recipe.decode), *(["--teacher-forcing"] if forced else listener)]
    args += ["--output", str(paths.forced if forced else paths.spoken), "--device", "cpu" if cpu else "cuda"]
    return Command(tuple(args), threads=recipe.run.threads)


def simul(paths: Paths, cpu: bool) -> Command | None:
    """None where the model is offline."""
    recipe = paths.recipe
    if not recipe.simul.laggings:
        return None
    args = ["python", _script("sweep_wait_k.py"), str(paths.manifests), "--config-yaml", recipe.data.config]
    args += ["--subset", paths.subset(recipe.decode.subset), "--path", str(paths.decoded_checkpoint)]
    limits = ["--max-len-a", f"{recipe.decode.max_len_a:g}", "--max-len-b", str(recipe.decode.max_len_b)]
    score = ["--tokenize", recipe.score.tokenize, *(["--lowercase"] if recipe.score.lowercase else [])]
    name = ["--system", recipe.name, *(["--title", recipe.description] if recipe.description else [])]
    args += [*flags(recipe.simul), *limits, *score, *name, "--output", str(paths.simul), *(["--cpu"] if cpu else [])]
    return Command(tuple(args), threads=recipe.run.threads)


def _task(recipe: Recipe) -> list[str]:
    user_dir = recipe.model.user_dir or os.path.relpath(_PACKAGE)
    return ["--config-yaml", recipe.data.config, "--task", recipe.model.fairseq_task, "--user-dir", user_dir]


def _machine(recipe: Recipe, cpu: bool) -> list[str]:
    return ["--num-workers", str(recipe.run.num_workers), *(["--cpu"] if cpu else [])]


def _script(name: str) -> str:
    return os.path.relpath(_PACKAGE.parent / "scripts" / name)
