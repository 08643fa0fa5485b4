"""From a run's files to ``result.json``."""

import json
import logging

import pytest

from mla_fairseq.recipes import scores
from mla_fairseq.recipes.commands import Paths
from mla_fairseq.recipes.loader import load_recipe
from mla_fairseq.recipes.records import Record, write_record
from mla_fairseq.recipes.schema import Model

MANIFEST = "id\taudio\tn_frames\ttgt_text\n" + "".join(f"u{n}\ta\t{n}00\tein Hund läuft weit {n}\n" for n in (1, 2, 3))
TRAIN_LOG = (
    "2030-01-01 12:00:00 | INFO | fairseq_cli.train | num. shared model params: 1,234,567 (num. trained: 1)\n"
    '2030-01-01 12:01:00 | INFO | train_inner | {"epoch": 2, "update": 1.5, "loss": "3", "nll_loss": "2", "ppl": "4", '
    '"wps": "80", "ups": "2", "num_updates": "6"}\n'
    '2030-01-01 12:02:00 | INFO | dev_st | {"dev_st_loss": "3", "dev_st_nll_loss": "2.5", "dev_st_num_updates": "6"}\n'
)
SPEED = "Translated 3 sentences (15 tokens) in 2.0s (1.50 sentences/s, 7.50 tokens/s)\n"


@pytest.fixture
def finished(small_paths):
    """A run that was trained and decoded."""

    def make(*overrides):
        paths = small_paths(*overrides)
        for split in ("train", "tst-COMMON"):
            paths.manifest(split).parent.mkdir(parents=True, exist_ok=True)
            paths.manifest(split).write_text(MANIFEST, encoding="utf-8")
        paths.run.mkdir(parents=True, exist_ok=True)
        paths.generated.write_text("".join(f"D-{n}\t-1\tein Hund läuft weit {n + 1}\n" for n in (2, 0, 1)), "utf-8")
        paths.log("train").write_text(TRAIN_LOG, encoding="utf-8")
        paths.log("decode").write_text(SPEED, encoding="utf-8")
        machine = {"device": "cpu", "cpu": "some", "cores": 2, "threads": 1, "torch": "2"}
        for stage in ("prepare", "train", "decode"):
            record = Record({}, f"run {stage}", "2030-01-01", 12.34, machine, "abc1234")
            write_record(paths.record(stage), record)
        write_record(paths.record("average"), Record({}, "half done"))
        return paths

    return make


def test_everything_that_a_table_needs_is_written(finished):
    paths = finished("model.cross_attn_type=relu", "train.seed=3")
    scores.write_scores(paths)
    result = json.loads(paths.result.read_text(encoding="utf-8"))
    assert (result["bleu"], result["chrf"], result["sentences"]) == (100.0, 100.0, 3)
    assert result["attention"] == {"encoder": "softmax", "decoder": "softmax", "cross": "relu"}
    assert (result["parameters"], result["updates"], result["seed"]) == (1234567, 6, 3)
    assert (result["train_words_per_second"], result["decode_words_per_second"]) == (80.0, 7.5)
    assert result["best_valid_loss"] == 2.5
    assert result["seconds"] == {"prepare": 12.3, "train": 12.3, "decode": 12.3}
    assert result["commands"]["train"] == "run train"
    assert (result["machine"]["cores"], result["commit"]) == (2, "abc1234")
    assert (paths.run / "training-curve.png").stat().st_size > 0
    assert "word_error_rate" not in result


def test_frames_per_second_follow_from_the_manifest(finished):
    """600 frames an epoch, 4 updates an epoch, 2 updates a second."""
    paths = finished()
    scores.write_scores(paths)
    assert json.loads(paths.result.read_text())["train_frames_per_second"] == 300


def test_too_long_utterances_are_no_frames(finished):
    paths = finished("train.max_source_positions=250")
    scores.write_scores(paths)
    assert json.loads(paths.result.read_text())["train_frames_per_second"] == 150


def test_recognition_is_measured_in_words(finished):
    paths = finished("data.task=asr")
    paths.generated.write_text("D-0\t-1\tein Hund läuft weit 1\nD-1\t-1\tein Mund läuft weit 2\nD-2\t-1\t\n", "utf-8")
    scores.write_scores(paths)
    assert json.loads(paths.result.read_text())["word_error_rate"] == 40.0


def test_samples_and_scores_are_shown(finished, caplog):
    with caplog.at_level(logging.INFO, logger="mla_fairseq"):
        scores.write_scores(finished("score.samples=1"))
    assert caplog.text.count("reference:") == 1
    assert "translation: ein Hund läuft weit 1" in caplog.text
    assert "small: BLEU 100.00, chrF 100.00" in caplog.text


VOICE = """
kind: speech
data: {corpus: tiny, root: "${DATA}", folder: LJSpeech-1.1}
train: {max_update: 10, max_target_positions: 250}
"""


def test_a_voice_has_the_distortions_of_both_ways(write, tmp_path, caplog):
    recipe = load_recipe(write("voice.yaml", VOICE), {"DATA": str(tmp_path / "data")})
    paths = Paths(recipe, tmp_path / "runs")
    for folder, mcd in ((paths.spoken, 4.5678), (paths.forced, 2.0)):
        folder.mkdir(parents=True)
        rates = {"word_error_rate": 3.0, "recorded_word_error_rate": 2.0}
        found = {"mcd": mcd, "duration_error": 0.1, "ended": 1.0, "seed": 1, **rates}
        (folder / "scores.json").write_text(json.dumps(found))
    paths.manifests.mkdir(parents=True)
    paths.manifest("train").write_text(MANIFEST, encoding="utf-8")
    paths.log("train").write_text(TRAIN_LOG.replace("dev_st", "dev"), encoding="utf-8")
    write_record(paths.record("train"), Record({}, "run train", "2030-01-01", 12.34, {"cores": 2}, "abc1234"))
    with caplog.at_level(logging.INFO, logger="mla_fairseq"):
        scores.write_speech_scores(paths)
    result = json.loads(paths.result.read_text(encoding="utf-8"))
    assert (result["kind"], result["mcd"], result["forced_mcd"]) == ("speech", 4.568, 2.0)
    assert (result["ended"], result["word_error_rate"], result["seed"]) == (1.0, 3.0, 1)
    assert result["train_frames_per_second"] == 150, "too long utterances are no frames"
    assert (paths.run / "training-curve.png").stat().st_size > 0
    assert "voice: word error rate 3.0 %, of the recorded speech 2.0 %, MCD 4.57, upon the recorded" in caplog.text


def test_without_matplotlib_there_are_scores_but_no_picture(finished, monkeypatch, caplog):
    def missing(*arguments):
        raise ModuleNotFoundError("No module named 'matplotlib'")

    monkeypatch.setattr(scores, "draw_training_curve", missing)
    paths = finished()
    scores.write_scores(paths)
    assert paths.result.is_file()
    assert "pip install" in caplog.text and "[plots]" in caplog.text


def test_the_command_runs_the_same_again(small_paths):
    recipe = small_paths("train.lr=0.1", "decode.extra={a: b c}").recipe
    words = scores.recipe_command(recipe)
    assert words.startswith("python scripts/run_recipe.py ")
    assert words.endswith("small.yaml --set train.lr=0.1 --set 'decode.extra={a: b c}'")


@pytest.mark.parametrize(
    ("model", "sites"),
    [
        pytest.param(Model(), ("softmax", "softmax", "softmax"), id="nothing-said"),
        pytest.param(Model(attn_type="relu"), ("relu", "relu", "relu"), id="everywhere"),
        pytest.param(Model(attn_type="relu", decoder_attn_type="elu"), ("relu", "elu", "relu"), id="one-other"),
    ],
)
def test_attention_by_site(model, sites):
    assert tuple(scores.attention_sites(model).values()) == sites
