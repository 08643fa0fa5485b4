"""Running stages: what is skipped, continued, done again, and refused.  The programs here are one-line Python."""

import dataclasses
import json
import logging
import sys

import pytest

from mla_fairseq.recipes import runner, stages
from mla_fairseq.recipes.commands import Command, Paths
from mla_fairseq.recipes.loader import load_recipe
from mla_fairseq.recipes.records import lock, read_record
from mla_fairseq.recipes.runner import Context, commands_of, run_stages
from mla_fairseq.recipes.stages import Stage

VOICE = """
kind: speech
data: {corpus: tiny, root: "${DATA}", folder: LJSpeech-1.1}
train: {max_update: 10}
"""


def _appends(name: str):
    """A command that adds a line to NAME.txt of the run, and fails where the file FAIL lies beside it."""
    program = "import pathlib, sys; f = pathlib.Path(sys.argv[1]); f.open('a').write('x\\n'); "
    program += "sys.exit('error: told to fail') if (f.parent / 'FAIL').exists() else None"
    return lambda paths, cpu: Command(("python", "-c", program, str(paths.run / f"{name}.txt")))


def _stage(name: str, after: str | None, **options) -> Stage:
    outputs = lambda paths: [paths.run / f"{name}.txt"]  # noqa: E731
    return Stage(name=name, command=_appends(name), after=after, outputs=outputs, **options)


FAKES = (
    Stage(name="prepare", command=lambda paths, cpu: None, after=None, depends=("data",), outputs=lambda paths: []),
    _stage("train", "prepare", depends=("train",), refuse="use --name", growable=("train.max_update",)),
    _stage("decode", "train", depends=("decode",)),
    _stage("measure", "train", depends=()),
    _stage("score", "decode", depends=("score",)),
)


@pytest.fixture
def play(small_paths, monkeypatch):
    """Runs the fake stages; returns how often each program has run so far."""
    monkeypatch.setattr(runner, "STAGES", {"translation": FAKES})

    def run(*overrides: str, names=(), redo=()) -> dict[str, int]:
        paths = small_paths(*overrides)
        run_stages(Context(paths, cpu=True), names, redo)
        files = {stage.name: paths.run / f"{stage.name}.txt" for stage in FAKES[1:]}
        return {name: len(path.read_text().splitlines()) if path.exists() else 0 for name, path in files.items()}

    return run


def counts(train: int, decode: int, measure: int, score: int) -> dict[str, int]:
    return {"train": train, "decode": decode, "measure": measure, "score": score}


def test_a_finished_recipe_runs_nothing_again(play):
    assert play() == counts(1, 1, 1, 1)
    assert play() == counts(1, 1, 1, 1)


def test_a_changed_option_redoes_its_stage_and_what_stands_on_it(play, monkeypatch):
    play()
    assert play("decode.beam=2") == counts(1, 2, 1, 2)


def test_a_changed_option_under_a_training_is_refused_by_name(play):
    play()
    with pytest.raises(ValueError, match=r"train\.lr was 0\.002, is 0\.5; use --name"):
        play("train.lr=0.5")
    assert play() == counts(1, 1, 1, 1)


def test_more_updates_continue_a_training(play):
    play()
    assert play("train.max_update=20") == counts(2, 2, 2, 2)
    with pytest.raises(ValueError, match=r"max_update was 20, is 10"):
        play()


def test_options_of_this_machine_change_nothing(play):
    play()
    assert play("run.threads=1", "run.device=cpu") == counts(1, 1, 1, 1)


def test_a_failed_stage_is_run_again_and_its_time_adds_up(play, small_paths):
    run = small_paths().run
    run.mkdir(parents=True)
    (run / "FAIL").touch()
    with pytest.raises(ValueError, match=r"told to fail.*train\.log"):
        play()
    first = read_record(run / ".stage-train.json")
    assert first.finished is None
    (run / "FAIL").unlink()
    assert play() == counts(2, 1, 1, 1)
    second = read_record(run / ".stage-train.json")
    assert second.finished is not None
    assert second.seconds > first.seconds > 0


def test_a_missing_result_is_made_again(play, small_paths):
    play()
    (small_paths().run / "decode.txt").unlink()
    assert play() == counts(1, 1, 1, 2)


def test_one_stage_runs_alone_once_its_forerunners_are_done(play):
    with pytest.raises(ValueError, match=r"stage train must be run first \(not done yet\).*--stage"):
        play(names=["decode"])
    assert play(names=["train"]) == counts(1, 0, 0, 0)
    assert play(names=["measure"]) == counts(1, 0, 1, 0)
    assert play(names=["decode", "score"]) == counts(1, 1, 1, 1)


def test_an_outdated_forerunner_is_named(play):
    play()
    with pytest.raises(ValueError, match=r"stage decode must be run first \(again: decode\.beam was 5, is 2\)"):
        play("decode.beam=2", names=["score"])


def test_redo_runs_a_stage_again_and_what_stands_on_it(play):
    play()
    assert play(redo=["decode"]) == counts(1, 2, 1, 2)


def test_redo_of_a_training_deletes_its_checkpoints(small_paths):
    paths = small_paths()
    paths.checkpoints.mkdir(parents=True)
    paths.log("train").write_text("old")
    next(stage for stage in stages.STAGES["translation"] if stage.name == "train").reset(paths)
    assert not paths.checkpoints.exists()
    assert not paths.log("train").exists()


def test_a_key_that_an_older_version_did_not_know_had_its_default(play, small_paths):
    play()
    path = small_paths().run / ".stage-train.json"
    record = json.loads(path.read_text())
    del record["options"]["train.clip_norm"]
    path.write_text(json.dumps(record))
    assert play() == counts(1, 1, 1, 1)
    record["options"]["train.forgotten_key"] = 3
    path.write_text(json.dumps(record))
    assert play() == counts(1, 1, 1, 1)


def test_two_runs_of_one_name_do_not_mix(play, small_paths):
    with lock(small_paths().run / ".lock", wait=False), pytest.raises(ValueError, match="in use"):
        play()


def test_the_log_says_what_was_run(play, small_paths, caplog):
    with caplog.at_level(logging.INFO, logger="mla_fairseq"):
        play()
    assert "[train] not done yet" in caplog.text
    assert "$ python -c" in caplog.text
    assert (small_paths().run / "train.log").read_text().startswith("# session ")


def test_moved_corpora_are_the_same_corpora(small_paths):
    paths = small_paths()
    moved = dataclasses.replace(paths.recipe.data, root="/elsewhere")
    recipe = dataclasses.replace(paths.recipe, data=moved, variables={"DATA": "/elsewhere"})
    for stage in stages.STAGES["translation"]:
        assert stage.options(recipe) == stage.options(paths.recipe)


@pytest.mark.parametrize("kind", list(stages.STAGES))
def test_every_stage_stands_on_an_earlier_one(kind):
    known = [None]
    for stage in stages.STAGES[kind]:
        assert stage.after in known
        known.append(stage.name)


def test_dry_run_names_all_programs_in_order(small_paths):
    shown = commands_of(Context(small_paths(), cpu=True))
    assert [stage for stage, _ in shown] == ["prepare", "train", "average", "decode"]
    assert all("\n" not in line for _, line in shown)


def test_dry_run_of_a_voice_names_all_programs_in_order(write, tmp_path):
    recipe = load_recipe(write("voice.yaml", VOICE), {"DATA": "data"})
    shown = commands_of(Context(Paths(recipe, tmp_path), cpu=True))
    assert [stage for stage, _ in shown] == ["prepare", "train", "average", "decode", "forced"]
    assert all("\n" not in line for _, line in shown)


def test_a_stage_of_another_kind_of_recipe_is_named(play):
    with pytest.raises(ValueError, match=r"no stage forced, only prepare, train, decode"):
        play(names=["forced"])


def test_what_a_later_stage_lacks_is_told_before_the_first_one(small_paths):
    paths = small_paths("model.load_pretrained_encoder_from=runs/asr/checkpoint_average.pt")
    with pytest.raises(ValueError, match=r"runs/asr/checkpoint_average\.pt, which does not exist: train it first"):
        run_stages(Context(paths, cpu=True))
    assert not paths.prepared.exists()


def test_a_set_that_was_not_prepared_is_told_before_the_training(small_paths):
    paths = small_paths("decode.subset=tst-HE")
    for split in ("train", "dev", "tst-COMMON"):
        manifest = paths.manifest(split)
        manifest.parent.mkdir(parents=True, exist_ok=True)
        manifest.touch()
    with pytest.raises(ValueError, match=r"decode.subset is 'tst-HE', but must be one of dev, train, tst-COMMON"):
        run_stages(Context(paths, cpu=True))
    assert not paths.checkpoints.exists()


def test_a_recogniser_that_is_missing_is_told_before_the_training(write, tmp_path, monkeypatch):
    recipe = load_recipe(write("voice.yaml", VOICE + "decode: {recogniser: train}\n"), {"DATA": "data"})
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ValueError, match="pocketsphinx is not installed"):
        run_stages(Context(Paths(recipe, tmp_path), cpu=True))


def test_a_missing_pretrained_encoder_names_its_recipe(small_paths, write):
    recipe = write("asr.yaml", "")
    paths = small_paths("model.load_pretrained_encoder_from=runs/asr/checkpoint_average.pt")
    with pytest.raises(ValueError, match=f"run {recipe} first"):
        run_stages(Context(paths, cpu=True), ["train"])


def test_a_finished_training_does_not_ask_for_its_start(play, small_paths, monkeypatch):
    play()
    train = dataclasses.replace(FAKES[1], check=lambda paths: pytest.fail("asked"))
    monkeypatch.setattr(runner, "STAGES", {"translation": (FAKES[0], train, *FAKES[2:])})
    run_stages(Context(small_paths(), cpu=True))


def test_a_gpu_that_is_not_there_names_the_mend(small_paths, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runner.context(small_paths().recipe, tmp_path).cpu
    with pytest.raises(ValueError, match=r"no GPU.*run\.device=cpu"):
        runner.context(small_paths("run.device=cuda").recipe, tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not runner.context(small_paths().recipe, tmp_path).cpu
