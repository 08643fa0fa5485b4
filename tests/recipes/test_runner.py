"""Running stages: which are skipped, continued, repeated and refused. No program runs here."""

import json
import multiprocessing
import sys

import pytest

from mla_fairseq.processes import locked
from mla_fairseq.recipes import load_recipe, run_recipe, runner
from mla_fairseq.recipes.runner import check_run


@pytest.fixture
def play(small, monkeypatch):
    """Run the small recipe; return the stages whose program ran."""
    monkeypatch.setattr(runner, "check_files", lambda recipe: None)
    monkeypatch.setattr(runner, "write_result", lambda recipe, records: None)

    def run(*overrides: str, fail: str = "", **options) -> list[str]:
        ran = []

        def execute(recipe, name):
            ran.append(name)
            if name == fail:
                raise ValueError("failed")
            recipe.makes(name).parent.mkdir(parents=True, exist_ok=True)
            recipe.makes(name).touch()

        monkeypatch.setattr(runner, "execute", execute)
        run_recipe(small(*overrides, **options))
        return ran

    return run


ALL = ["prepare", "train", "average", "generate"]


def test_a_finished_recipe_runs_nothing_again(play):
    assert play() == ALL
    assert play() == []


def test_a_changed_flag_runs_its_stage_again_and_those_after_it(play):
    play()
    assert play("generate.beam=2") == ["generate"]
    assert play("generate.beam=2", "average.last=2") == ["average", "generate"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.lr=0.5", r"train was run differently \(lr was 0\.003, is 0\.5\): give this run another --name"),
        (
            "prepare.vocab_size=9",
            r"prepare .*\(vocab_size was 50, is 9\): give the data another name \(--set data=NAME",
        ),
    ],
)
def test_changes_under_a_training_or_shared_data_are_refused(play, override, words):
    play()
    with pytest.raises(ValueError, match=words):
        play(override)
    assert play() == []


def test_more_updates_continue_a_training_and_fewer_are_refused(play):
    play()
    assert play("train.max_update=9999") == ["train", "average", "generate"]
    with pytest.raises(ValueError, match="max_update was 9999, is 2500"):
        play()


def test_a_removed_limit_is_refused(play):
    play()
    with pytest.raises(ValueError, match=r"train was run differently \(max_update was 2500, is None; .*another --name"):
        play("train.max_update=null")
    assert play() == []


def test_leaving_out_a_stage_does_not_change_later_ones(play):
    play()
    assert play("prepare=null") == []


def test_data_prepared_again_refuse_the_training(play, small):
    play()
    small().makes("prepare").joinpath(".stage-prepare.json").unlink()
    with pytest.raises(ValueError, match=r"train was run differently \(an earlier stage was run again\)"):
        play()


def test_another_machine_and_moved_corpora_repeat_no_stage(play):
    play()
    assert play("train.num_workers=0", "generate.num_workers=4", cpu=False, data="/elsewhere") == []


def test_a_moved_folder_of_runs_repeats_and_refuses_nothing(play, small, tmp_path, monkeypatch):
    play()
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(sys.modules[small.__module__], "load_recipe", moved(tmp_path / "elsewhere"))
    assert play() == []
    assert play("generate.beam=2") == ["generate"]


def moved(runs):
    return lambda path, out, *more, **options: load_recipe(path, runs, *more, **options)


def test_a_record_of_version_0_2_has_the_folder_of_all_runs_itself(play, small):
    play()
    for name in ALL:
        recipe = small()
        path = (recipe.makes(name) if name == "prepare" else recipe.run) / f".stage-{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"flags": recipe.shown[name]}))
    assert play() == []


@pytest.mark.parametrize("text", ["[1]", "{}", '{"flags": 5}', "[" * 100_000])
def test_a_broken_record_is_reported(play, small, text):
    play()
    (small().run / ".stage-train.json").write_text(text)
    with pytest.raises(ValueError, match=r"\.stage-train\.json is not .*: .*delete it"):
        play()


def test_a_run_that_would_be_refused_is_known_before(play, small):
    check_run(small())
    play()
    check_run(small())
    with pytest.raises(ValueError, match=r"train was run differently \(lr was 0\.003, is 0\.5\)"):
        check_run(small("train.lr=0.5"))


def test_a_failed_training_continues_and_its_time_adds_up(play, small):
    with pytest.raises(ValueError, match="failed"):
        play(fail="train")
    path = small().run / ".stage-train.json"
    record = json.loads(path.read_text())
    assert record["finished"] is None
    path.write_text(json.dumps(record | {"seconds": 100.0}))
    assert play() == ALL[1:]
    record = json.loads(path.read_text())
    assert record["finished"] and record["seconds"] >= 100.0
    assert record["commit"] and record["machine"]["cores"] and record["command"].startswith("fairseq-train ")


def test_a_missing_result_is_made_again(play, small):
    play()
    small().makes("average").unlink()
    assert play() == ["average", "generate"]


def test_prepared_data_are_shared(play, small):
    play()
    recipe = small("train.seed=7")
    assert recipe.makes("prepare") == small().makes("prepare")


def test_a_second_run_waits_for_the_first(play, small):
    recipe = small()
    second = multiprocessing.get_context("fork").Process(target=play)  # a process may hold a lock twice
    with locked(recipe.run.with_name(".small.lock"), recipe.run):
        second.start()
        second.join(0.5)
        assert second.is_alive() and not (recipe.run / ".stage-train.json").exists()
    second.join(60)
    assert (recipe.run / ".stage-train.json").exists()
