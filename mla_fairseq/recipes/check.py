"""Before anything runs: the program of every stage parses its flags, and the files that a recipe starts from exist."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from fairseq import options

from mla_fairseq.recipes.recipe import Recipe, near
from mla_fairseq.recipes.stages import ROOT, STAGES

_STARTS = ("load_pretrained_encoder_from", "finetune_from_model")
_SUBSETS = ("train_subset", "valid_subset", "gen_subset", "subset")
_CHOICES = re.compile(r"invalid choice: '(.*)' \(choose from (.{200,})\)$")


def check(recipe: Recipe) -> None:
    """Parse every stage's flags with its program's own parser.

    Raises:
        ValueError: a flag or value that a program does not take, or two that contradict each other.
    """
    parsed = {name: _parse(recipe, name) for name in recipe.stages()}
    last, kept = getattr(parsed.get("average"), "last", 0), parsed["train"].keep_interval_updates
    if last > kept >= 0:
        raise ValueError(f"average.last is {last}, but {kept} checkpoints are kept: raise train.keep_interval_updates")


def _parse(recipe: Recipe, name: str) -> Namespace:
    stderr, words = io.StringIO(), recipe.command(name)[len(STAGES[name].program) :]
    try:
        with contextlib.redirect_stderr(stderr):
            parser = _parser(STAGES[name].program)
            if STAGES[name].program[0].startswith("fairseq"):
                args, rest = options.parse_args_and_arch(parser, words, parse_known=True)
            else:
                args, rest = parser.parse_known_args(words)
    except SystemExit as error:  # argparse prints its message and exits; where a package is missing, it is the message
        said = error.code if isinstance(error.code, str) else stderr.getvalue()
        raise ValueError(f"{name}: {_shorten(said.strip().rpartition('error: ')[2])}") from error
    _check_keys(recipe, name, parser)
    if rest:
        raise ValueError(f"{name}: '{' '.join(rest)}' belongs to no flag: give one value where one is expected")
    return args


def _check_keys(recipe: Recipe, name: str, parser: ArgumentParser) -> None:
    """Look up every key, those without a value too, which would become no flag at all."""
    for key, value in recipe.tree[name].items():
        action = parser._option_string_actions.get(f"--{key.replace('_', '-')}")
        if action is None and key != STAGES[name].positional:
            known = [flag.removeprefix("--").replace("-", "_") for flag in parser._option_string_actions]
            raise ValueError(f"{name}.{key} is not a flag of {' '.join(STAGES[name].program)}: {near(key, known)}")
        if value is False and action and action.nargs != 0:
            raise ValueError(f"{name}.{key} is false, but takes a value: give one, or null for the default")


def _parser(program: tuple[str, ...]) -> ArgumentParser:
    if program[0].startswith("fairseq"):
        return options.get_training_parser() if program[0] == "fairseq-train" else options.get_generation_parser()
    path = program[1] if len(program) == 2 else ROOT / program[2].replace(".", "/") / "__main__.py"
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))  # modules outside the package import each other from there
    return runpy.run_path(str(path))["build_parser"]()


def _shorten(message: str) -> str:
    """Name the nearest of many choices instead of all of them."""
    if not (choices := _CHOICES.search(message)):
        return message
    value, known = choices.groups()
    advice = near(value, known.replace("'", "").split(", "))
    return f"{message[: choices.start()]}invalid choice: '{value}': {advice}"


def check_files(recipe: Recipe) -> None:
    """Look for the checkpoints that the training starts from and, once the data are prepared, for the sets.

    Raises:
        ValueError: one does not exist.
    """
    made, train = [str(recipe.makes(name)) for name in recipe.stages()], recipe.tree["train"]
    trained = recipe.makes("train").exists()
    for key in _STARTS:
        start = train.get(key)
        if start and start not in made and not trained and not Path(start).is_file():
            raise ValueError(
                f"train.{key} is {start}, which does not exist: run the recipe of {Path(start).parent.name} first, or "
                f"start from scratch with --set train.{key}=null"
            )
    there = sorted(path.stem for path in recipe.manifest("").parent.glob("*.tsv"))
    for name in recipe.stages() if train["train_subset"] in there else ():
        for key in _SUBSETS:
            subset = recipe.tree[name].get(key)
            if subset and subset not in there:
                raise ValueError(f"{name}.{key} is {subset}, which was not prepared: take one of {', '.join(there)}")
