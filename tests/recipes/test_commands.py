"""Command lines: every flag is one that the program knows, every line can be pasted into a shell."""

import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_fairseq.recipes import commands
from mla_fairseq.recipes.commands import Command, Paths, split_variable
from mla_fairseq.recipes.loader import load_recipe

ROOT = Path(__file__).resolve().parents[2]
BASES = ("base", "tiny", "tiny_tts")
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.stem not in BASES)
VARIABLES = {"DATA": "/my corpora", "RUNS": "runs"}
RECIPES = {path.stem: load_recipe(path, VARIABLES) for path in CONFIGS}


def flag_value(command: Command, flag: str) -> str:
    return command.args[command.args.index(flag) + 1]


def of_kind(kind: str | None = None) -> list:
    return [
        pytest.param(Paths(recipe, Path("runs")), id=name)
        for name, recipe in RECIPES.items()
        if kind in (None, recipe.kind)
    ]


every_recipe = pytest.mark.parametrize("paths", of_kind())
every_translation = pytest.mark.parametrize("paths", of_kind("translation"))
every_voice = pytest.mark.parametrize("paths", of_kind("speech"))


def script(name: str, entry: str):
    return runpy.run_path(str(ROOT / "scripts" / name))[entry]


@every_recipe
def test_fairseq_train_knows_every_flag(paths):
    from fairseq import options

    command = commands.train(paths, cpu=True)
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(parser, input_args=list(command.args[1:]))
    assert args.max_update == [paths.recipe.train.max_update] or args.max_update == paths.recipe.train.max_update
    assert args.arch == paths.recipe.model.arch
    assert args.cpu


@every_translation
def test_fairseq_generate_knows_every_flag(paths):
    from fairseq import options

    command = commands.decode(paths, cpu=True)
    parser = options.get_generation_parser()
    args = options.parse_args_and_arch(parser, input_args=list(command.args[1:]))
    assert (args.beam, args.gen_subset) == (paths.recipe.decode.beam, f"tst-COMMON_{paths.recipe.data.task}")
    assert args.path == str(paths.averaged)


@every_translation
def test_the_preparation_knows_every_flag(paths, monkeypatch):
    command = commands.prepare(paths)
    monkeypatch.setattr(sys, "argv", list(command.args[1:]))
    args = script("prep_mustc.py", "parse")()
    assert args.vocab_size == paths.recipe.data.vocab_size
    assert args.output == paths.prepared == paths.manifests.parent


@every_voice
def test_the_preparation_of_a_voice_knows_every_flag(paths, monkeypatch):
    command = commands.prepare_voice(paths)
    monkeypatch.setattr(sys, "argv", list(command.args[1:]))
    args = script("prep_ljspeech.py", "parse")()
    data = paths.recipe.data
    assert (args.folder, args.unit, args.speaker) == (data.source, data.unit, data.speaker)
    assert args.output == paths.prepared == paths.manifests


@every_voice
@pytest.mark.parametrize("forced", [False, True])
def test_the_synthesis_knows_every_flag(paths, forced):
    command = commands.synthesize(paths, True, forced)
    args = script("synthesize.py", "build_parser")().parse_args(command.args[2:])
    assert (args.checkpoint, args.gen_subset) == (paths.averaged, paths.recipe.decode.subset)
    assert args.recogniser == (None if forced else paths.recipe.decode.recogniser)
    assert (args.teacher_forcing, args.output) == (forced, paths.forced if forced else paths.spoken)


@every_recipe
def test_the_averaging_knows_every_flag(paths):
    args = script("average_checkpoints.py", "build_parser")().parse_args(commands.average(paths).args[2:])
    assert (args.last, args.output) == (paths.recipe.average.last, paths.averaged)


@every_recipe
def test_plain_commands_hold_no_absolute_path(paths, monkeypatch):
    monkeypatch.chdir(ROOT)
    preparation, decoding = {
        "translation": (commands.prepare, commands.decode),
        "speech": (commands.prepare_voice, commands.synthesize),
    }[paths.recipe.kind]
    for command in (preparation(paths), commands.train(paths, True), decoding(paths, True)):
        assert {"mla_fairseq", "scripts/prep_mustc.py", "scripts/prep_ljspeech.py", "scripts/synthesize.py"} & {
            *command.args
        }
        words = shlex.split(command.show({"DATA": "/my corpora"}))
        assert [word for word in words if word.startswith("/")] == []


def test_the_best_checkpoint_is_decoded_where_nothing_is_averaged(small_paths):
    paths = small_paths("average.last=0")
    assert commands.average(paths) is None
    assert flag_value(commands.decode(paths, True), "--path").endswith("checkpoints/checkpoint_best.pt")


def test_extra_flags_come_last_and_switches_have_no_value(small_paths):
    paths = small_paths("train.extra={adam_betas: '(0.9, 0.98)', no_save: true, all_gather_list_size: null}")
    command = commands.train(paths, cpu=False)
    assert flag_value(command, "--adam-betas") == "(0.9, 0.98)"
    assert "--no-save" in command.args
    assert "--all-gather-list-size" not in command.args
    assert "--cpu" not in command.args


def test_prepared_data_has_one_folder_per_kind(small_paths):
    kinds = (
        "data.task=asr",
        "data.vocab_size=60",
        "data.vocab_type=char",
        "data.cmvn=global",
        "data.corpus=other",
        "data.vocab=runs/data/a_st_unigram9_global/en-de/spm.model",
    )
    assert len({small_paths(*kind).prepared for kind in [(), *((kind,) for kind in kinds)]}) == 1 + len(kinds)


def test_threads_and_output_are_part_of_the_line():
    assert Command(("a", "b c"), stdout=Path("x y"), threads=2).show({}) == "OMP_NUM_THREADS=2 a 'b c' > 'x y'"


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n"), min_size=1, max_size=12)


@given(words=st.lists(WORDS, min_size=1, max_size=4))
def test_a_shown_line_means_the_same_to_the_shell(words):
    assert tuple(shlex.split(Command(tuple(words)).show({}))) == tuple(words)


@pytest.mark.parametrize("rest", ["", "/en-de", "/a b/'c'", "-other"])
def test_a_folder_is_shown_by_its_variable(rest):
    shown = Command(("printf", "%s", f"/my corpora{rest}")).show({"DATA": "/my corpora"})
    assert ("$DATA" in shown) == (rest != "-other")
    out = subprocess.run(["sh", "-c", shown], env={"DATA": "/my corpora"}, capture_output=True, text=True, check=True)
    assert out.stdout == f"/my corpora{rest}"


def test_no_variable_is_no_folder():
    assert split_variable("/x", {"DATA": ""}) == ("", "/x")


@pytest.mark.parametrize("updates", [77, 9000])
def test_a_falling_learning_rate_reaches_its_end_with_the_last_update(updates: int) -> None:
    recipe = load_recipe(ROOT / "configs/demo.yaml", VARIABLES, [f"train.max_update={updates}"])
    command = commands.train(Paths(recipe, Path("runs")), cpu=True)
    assert flag_value(command, "--total-num-update") == flag_value(command, "--max-update") == str(updates)
