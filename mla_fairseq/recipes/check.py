"""Check a recipe before anything runs: every program knows its flags, and the files to start from exist."""

from __future__ import annotations

import contextlib
import io
import os
import pkgutil
import re
import runpy
import sys
from argparse import ArgumentParser, Namespace
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import torch
from fairseq import options
from fairseq.models import ARCH_MODEL_INV_REGISTRY, MODEL_REGISTRY

from mla_fairseq import plugin  # noqa: F401 -- registers the architectures
from mla_fairseq.files import unusable
from mla_fairseq.recipes.layers import near
from mla_fairseq.recipes.recipe import Recipe
from mla_fairseq.recipes.stages import STAGES

_NOT_NEGATIVE = ("max_epoch", "max_update", "warmup_updates")
_HIDDEN = {("train", "no_save"), ("train", "no_last_checkpoints"), ("generate", "quiet")}  # what later stages read
_COUNTS = ("batch_size", "beam", "last", "max_tokens", "sentences", "voices")
_RENAMED = {f"cosformer_{key}": f"target_{key}" for key in ("length", "length_ratio", "length_fixed")}
_RENAMED |= {"cosformer_train_length": "train_target_length", "cosformer_source_length": "source_length"}
_RENAMED |= {"decay_shortest": "decay_min_half_life", "decay_longest": "decay_max_half_life"}
_CHOICES = re.compile(r"(?<=invalid choice: )'(.*)' \(choose from (.{200,})\)$")


def check(recipe: Recipe) -> None:
    """Parse every stage's flags with its program's own parser.

    Raises:
        ValueError: a program does not take a flag or a value, or two values contradict each other.
    """
    parsed = {name: parse(recipe, name) for name in recipe.stages()}
    last, kept = getattr(parsed.get("average"), "last", 0), parsed["train"].keep_interval_updates
    if last > kept >= 0:
        raise ValueError(f"average.last is {last}, but {kept} checkpoints are kept: raise train.keep_interval_updates")
    train, generate = parsed["train"], parsed.get("generate")
    learns_target = getattr(train, "ctc_weight", None) and getattr(train, "ctc_text", None) in ("target", "both")
    if getattr(generate, "ctc_decoding_weight", None) and not learns_target:
        raise ValueError(
            "generate.ctc_decoding_weight needs CTC on the translation: set train.ctc_weight=0.3 and "
            "train.ctc_text=both, or generate.ctc_decoding_weight=null"
        )
    if "simul" in parsed and not (getattr(train, "simul_type", None) or "waitk").startswith("waitk"):
        raise ValueError(f"simul decodes by wait-k, but train.simul_type is {train.simul_type}: set simul=null")
    if "simul" in parsed and not hasattr(train, "waitk_lagging"):
        raise ValueError(f"simul decodes by wait-k, but train.arch is {train.arch}, which is offline: set simul=null")
    if "export" in parsed:
        _check_sweep(parsed["export"].waitk_lagging, parsed.get("simul"))
    if getattr(generate, "tgt_lang", None) and "prepare" in parsed and not parsed["prepare"].joint:
        raise ValueError("generate.tgt_lang needs data with tags of languages: set prepare.joint=true, or remove it")


def _check_sweep(lagging: int, sweep: Namespace | None) -> None:
    """Check that the sweep whose words the exported model is compared with has their k."""
    if sweep is None:
        raise ValueError("export compares its words with those of simul, which is left out: set export=null too")
    if lagging not in sweep.laggings:
        known = ", ".join(map(str, sweep.laggings))
        raise ValueError(f"export.waitk_lagging is {lagging}, but simul.laggings is {known}: name one of them")


@cache
def parse(recipe: Recipe, name: str) -> Namespace:
    """Return a stage's flags as its program parses them, with the program's defaults.

    Raises:
        ValueError: the program does not take a flag or a value.
    """
    stderr, words = io.StringIO(), recipe.command(name)[len(STAGES[name].program) :]
    try:
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            parser = _parser(STAGES[name].program)
            if STAGES[name].program[0].startswith("fairseq"):
                args, rest = options.parse_args_and_arch(parser, words, parse_known=True)
            else:
                args, rest = parser.parse_known_args(words)
    except RuntimeError as error:  # fairseq gives no reason
        raise ValueError(f"{name}.arch is missing: name an architecture, such as s2t_transformer_mla_s") from error
    except FileNotFoundError as error:
        raise ValueError(f"{name}.user_dir is {error}, which does not exist: name the folder of a package") from error
    except (SyntaxError, NameError, AttributeError) as error:  # fairseq evaluates some values as Python
        raise ValueError(
            f"{name}: a value is not the number or list that its flag needs ({error}): correct it"
        ) from error
    except SystemExit as error:  # argparse prints its message and exits with a number; UserError exits with a message
        message = error.code if isinstance(error.code, str) else stderr.getvalue()
        message = message or f"a recipe shows no help: run {' '.join(STAGES[name].program)} --help"
        raise ValueError(f"{name}: {_CHOICES.sub(_nearest, message.strip().rpartition('error: ')[2])}") from error
    _check_keys(recipe, name, parser)
    if rest:
        raise ValueError(f"{name}: '{' '.join(rest)}' belongs to no flag: give one value where one is expected")
    return args


def _check_keys(recipe: Recipe, name: str, parser: ArgumentParser) -> None:
    """Look up every key, also those that are null and become no flag."""
    for key, value in recipe.tree[name].items():
        action = parser._option_string_actions.get(f"--{key.replace('_', '-')}")
        if action is None and key != STAGES[name].positional:
            advice = _advice(key, _keys(parser), recipe.tree["train"].get("arch") if name == "train" else None)
            raise ValueError(f"{name}.{key} is not a flag of {' '.join(STAGES[name].program)}: {advice}")
        if key in _COUNTS and isinstance(value, int) and value < 1:
            raise ValueError(f"{name}.{key} is {value}: give 1 or more")
        if key in _NOT_NEGATIVE and isinstance(value, int) and value < 0:
            raise ValueError(f"{name}.{key} is {value}: give 0 or more")
        if value is True and (name, key) in _HIDDEN:
            raise ValueError(f"{name}.{key} is true, but other stages read what it leaves out: remove it")
        if value is False and action and action.nargs != 0:
            raise ValueError(f"{name}.{key} is false, but takes a value: give one, or null for the default")


def _keys(parser: ArgumentParser) -> list[str]:
    return [flag[2:].replace("-", "_") for flag in parser._option_string_actions if flag.startswith("--")]


def _advice(key: str, known: list[str], arch: str | None) -> str:
    """Return what to write instead of an unknown key: its new name, an ``arch`` that has it, or the nearest key."""
    if _RENAMED.get(key) in known:
        return f"it is called {_RENAMED[key]} now"
    archs: list[str] = []
    for model, names in ARCH_MODEL_INV_REGISTRY.items() if arch else ():
        MODEL_REGISTRY[model].add_args(parser := ArgumentParser(allow_abbrev=False))
        archs += names if key in _keys(parser) else []
    if arch and archs:
        return f"it belongs to another arch, such as {get_close_matches(arch, archs, 1, 0)[0]}"
    return near(key, known)


def _parser(program: tuple[str, ...]) -> ArgumentParser:
    if program[0].startswith("fairseq"):
        return options.get_training_parser() if program[0] == "fairseq-train" else options.get_generation_parser()
    if program[0] == "python":
        return _parser_of_module(program[-1])
    module = program[0].removeprefix("mla-").replace("-", "_")
    # by name, as the program itself is run: recipes import nothing of the commands
    return pkgutil.resolve_name(f"mla_fairseq.cli.{module}:build_parser")()


def _parser_of_module(name: str) -> ArgumentParser:
    """Return the parser of ``python -m NAME``, a module of a checkout, in whose folder the recipe has to run."""
    module = Path(name.replace(".", "/"))
    path = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
    if not path.is_file():
        raise ValueError(f"{name} is not in {Path.cwd()}: run this recipe in a clone of the repository")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as python -m does; the module imports others of its folder
    return runpy.run_path(str(path))["build_parser"]()


def _nearest(choices: re.Match[str]) -> str:
    """Name the nearest of many choices instead of all of them."""
    return f"'{choices[1]}': {near(choices[1], choices[2].replace(chr(39), '').split(', '))}"


def check_gpu(recipe: Recipe) -> None:
    """Check that there is a GPU if the training needs one.

    Raises:
        ValueError: there is none.
    """
    if recipe.tree["train"].get("fp16") and not torch.cuda.is_available():
        raise ValueError("train.fp16 is true, but there is no GPU: use a machine with one, or --set train.fp16=null")


def check_files(recipe: Recipe) -> None:
    """Check that the training's initial checkpoints exist and, once the data are prepared, the sets.

    Raises:
        ValueError: one of them is missing.
    """
    folder = recipe.manifest("").parent
    if not os.path.isdir(folder) and not any(name.startswith("prepare") for name in recipe.stages()):
        fault = "is not a folder: correct it" if os.path.lexists(folder) else "is missing: add a section prepare"
        raise ValueError(f"train.data is {recipe.tree['train']['data']}, which {fault}")
    made = ["checkpoint_last.pt", *(str(recipe.makes(name)) for name in recipe.stages())]
    trained = any(recipe.makes("train").parent.glob("checkpoint*.pt"))
    for key in ("load_pretrained_encoder_from", "finetune_from_model", "restore_file"):
        start = recipe.tree["train"].get(key)
        if start and start not in made and not trained and (fault := unusable(Path(start))):
            other = Path(start).parent.name
            fix = f"run the recipe of {other} first" if other else "correct it"
            raise ValueError(
                f"train.{key} is {start}, which {fault}: {fix}, or start without it: --set train.{key}=null"
            )
    train, there = parse(recipe, "train"), sorted(path.stem for path in recipe.manifest("").parent.glob("*.tsv"))
    used = [] if train.disable_validation else [("train", "valid_subset")]
    used += [(name, key) for name in recipe.stages() if name != "train" for key in ("gen_subset", "subset")]
    for name, key in used if set(train.train_subset.split(",")) <= set(there) else ():
        for subset in (getattr(parse(recipe, name), key, None) or "").split(","):
            if subset and subset not in there:
                raise ValueError(f"{name}.{key} is {subset}, which was not prepared: {near(subset, there)}")
