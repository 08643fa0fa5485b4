"""From a run's files to ``result.json``."""

import json
import logging
import sys
from pathlib import Path

import pytest

from mla_fairseq.evaluation.quality_latency import write_points
from mla_fairseq.files import write_json
from mla_fairseq.recipes import load_recipe
from mla_fairseq.recipes.result import write_result

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = "id\taudio\tn_frames\ttgt_text\n" + "".join(f"u{n}\ta\t{n}00\tein Hund läuft weit {n}\n" for n in (1, 2, 3))
TRAIN_LOG = (
    "2030-01-01 12:00:00 | INFO | fairseq_cli.train | num. shared model params: 1,234,567 (num. trained: 1)\n"
    '2030-01-01 12:01:00 | INFO | train_inner | {"epoch": 2, "update": 1.5, "loss": "3", "nll_loss": "2", "ppl": "4", '
    '"wps": "80", "ups": "2", "num_updates": "6"}\n'
    '2030-01-01 12:02:00 | INFO | dev_st | {"dev_st_loss": "3", "dev_st_nll_loss": "2.5", "dev_st_num_updates": "6"}\n'
)
SPEED = "Translated 3 sentences (15 tokens) in 2.0s (1.50 sentences/s, 7.50 tokens/s)\n"
RIGHT = "".join(f"D-{n}\t-1\tein Hund läuft weit {n + 1}\n" for n in (2, 0, 1)) + SPEED
RECORD = {"seconds": 12.3, "machine": {"cores": 2}, "commit": "abc1234", "finished": "2030-01-01"}


def files(recipe) -> None:
    """Write the files of a training."""
    for key in ("train_subset", "valid_subset"):
        recipe.manifest(recipe.tree["train"][key]).parent.mkdir(parents=True, exist_ok=True)
        recipe.manifest(recipe.tree["train"][key]).write_text(MANIFEST, encoding="utf-8")
    recipe.run.mkdir(parents=True, exist_ok=True)
    (recipe.run / "train.log").write_text(TRAIN_LOG, encoding="utf-8")


def result(recipe) -> dict:
    write_result(recipe, {name: {**RECORD, "command": f"run {name}"} for name in recipe.stages()})
    return json.loads((recipe.run / "result.json").read_text(encoding="utf-8"))


@pytest.fixture
def translated(small):
    """Return the result of a run that was trained and decoded."""

    def make(*overrides: str, generated: str = RIGHT) -> dict:
        recipe = small(*overrides)
        files(recipe)
        recipe.manifest(recipe.tree["generate"]["gen_subset"]).write_text(MANIFEST, encoding="utf-8")
        recipe.makes("generate").write_text(generated, encoding="utf-8")
        if "simul" in recipe.tree:
            write_points(recipe.makes("simul"), [{"system": "x", "k": k, "bleu": 9.0, "al": 1234.5} for k in (1, 5)])
        if "long_recordings" in recipe.tree:
            write_json(recipe.makes("long_recordings"), {"pauses": {"bleu": 9.0, "yaal": 1234.5}})
        if "export" in recipe.tree:
            recipe.makes("export").parent.mkdir()
            write_json(recipe.makes("export"), {"int8": {"megabytes": 2.7, "same": 3}})
        return result(recipe)

    return make


def test_everything_that_a_table_needs_is_written(translated, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="mla_fairseq"):
        found = translated("train.cross_attn_type=relu", "train.seed=3")
    assert (found["bleu"], found["chrf"], found["subset"]) == (100.0, 100.0, "tst-COMMON_st")
    assert found["attention"] == {"encoder": "softmax", "decoder": "softmax", "cross": "relu"}
    assert (found["parameters"], found["updates"], found["seed"]) == (1234567, 6, 3)
    assert (found["train_words_per_second"], found["decode_words_per_second"]) == (80.0, 7.5)
    assert found["train_frames_per_second"] == 300, "600 frames and 4 updates an epoch, 2 updates a second"
    assert found["best_valid_loss"] == 2.5
    assert (found["commands"]["train"], found["seconds"]["train"]) == ("run train", 12.3)
    assert (found["machine"], found["commit"]) == ({"cores": 2}, "abc1234")
    assert found["command"].endswith("small.yaml --set train.cross_attn_type=relu train.seed=3 --name small")
    assert "word_error_rate" not in found and "points" not in found
    assert (tmp_path / "runs" / "small" / "training-curve.png").stat().st_size > 0
    assert "translation: ein Hund läuft weit 1" in caplog.text
    assert "small: bleu 100.00, chrf 100.00" in caplog.text


def test_without_matplotlib_a_result_has_no_curve(translated, tmp_path, caplog, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"] or ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert translated()["bleu"] == 100.0
    lines = [message for message in caplog.messages if "training curve" in message]
    assert len(lines) == 1 and 'install the extra plots: pip install -c constraints.txt ".[plots]"' in lines[0]
    assert not list((tmp_path / "runs" / "small").glob("training-curve*"))


def test_a_training_without_logged_updates_has_scores_and_no_curve(translated, tmp_path, caplog, monkeypatch):
    stats = '{"epoch": 1, "train_loss": "3", "train_num_updates": "2"}'
    monkeypatch.setattr(f"{__name__}.TRAIN_LOG", f"2030-01-01 12:00:00 | INFO | train | {stats}\n")
    assert translated()["bleu"] == 100.0
    assert "no training curve: " in caplog.text
    assert "train.log has 2 updates, fewer than --log-interval: train longer, or" in caplog.text
    assert not list((tmp_path / "runs" / "small").glob("training-curve*"))


def test_frames_of_too_long_utterances_do_not_count(translated):
    assert translated("train.max_source_positions=250")["train_frames_per_second"] == 150


def test_several_sets_are_scored_together_and_one_by_one(small):
    recipe = small("train.train_subset='train_x,train_y'", "generate.gen_subset='x,y'", "simul=null")
    files(recipe)
    for name in ("train_x", "train_y", "x", "y"):
        recipe.manifest(name).write_text(MANIFEST, encoding="utf-8")
    wrong = "".join(f"D-{n}\t-1\teine Katze schläft\n" for n in (3, 4, 5))
    recipe.makes("generate").write_text(RIGHT + wrong, encoding="utf-8")
    found = result(recipe)
    assert [(one["subset"], one["sentences"]) for one in found["sets"]] == [("x", 3), ("y", 3)]
    right, wrong = (one["bleu"] for one in found["sets"])
    assert right == pytest.approx(100)
    assert right > found["bleu"] > wrong
    assert (found["subset"], found["sentences"]) == ("x,y", 6)
    assert found["train_frames_per_second"] == 600, "1200 frames and 4 updates an epoch, 2 updates a second"


def test_recognition_is_measured_in_words(translated):
    wrong = "D-0\t-1\tein Hund läuft weit 1\nD-1\t-1\tein Mund läuft weit 2\nD-2\t-1\t\n"
    assert translated("prepare.task=asr", generated=wrong)["word_error_rate"] == 40.0


def test_long_recordings_have_a_row_each(translated):
    found = translated("long_recordings={kinds: [pauses]}")
    assert found["long_recordings"] == [{"speech": "pauses", "bleu": 9.0, "yaal": 1234.5}]


def test_an_exported_model_has_a_row_for_each_precision(translated):
    found = translated("simul={laggings: '1,5'}", "export={waitk_lagging: 5}")
    assert found["device"] == [{"precision": "int8", "megabytes": 2.7, "same": 3}]


def test_latencies_are_points(translated):
    found = translated("simul={laggings: '1,5'}")
    assert [(point["setting"], point["al"]) for point in found["points"]] == [("1", 1234.5), ("5", 1234.5)]


def test_speech_has_the_distortions_of_free_and_forced_synthesis(tmp_path):
    text = "base: tiny_tts.yaml\nprepare_speech: {folder: LJ}\ntrain: {max_target_positions: 250}\n"
    (tmp_path / "voice.yaml").write_text(text)
    (tmp_path / "tiny_tts.yaml").write_text((ROOT / "configs" / "tiny_tts.yaml").read_text())
    recipe = load_recipe(tmp_path / "voice.yaml", tmp_path / "runs", data="corpora")
    files(recipe)
    for name, mcd in (("synthesize", 4.5678), ("force", 2.0)):
        recipe.makes(name).parent.mkdir(parents=True)
        scores = {"mcd": mcd, "ended": 1.0, "word_error_rate": 3.0, "recorded_word_error_rate": 2.0}
        recipe.makes(name).write_text(json.dumps(scores))
    found = result(recipe)
    assert (found["mcd"], found["forced_mcd"], found["ended"], found["subset"]) == (4.568, 2.0, 1.0, "test")
    assert found["train_frames_per_second"] == 150


def test_free_synthesis_alone_has_a_result(write, tmp_path):
    path = write(f"base: {ROOT}/configs/tiny_tts.yaml\nprepare_speech: {{folder: LJ}}\n")
    recipe = load_recipe(path, tmp_path / "runs", ["force=null"], data="corpora")
    files(recipe)
    recipe.makes("synthesize").parent.mkdir(parents=True)
    recipe.makes("synthesize").write_text(json.dumps({"mcd": 4.5678}))
    found = result(recipe)
    assert (found["mcd"], "forced_mcd" in found) == (4.568, False)


def test_defaults_are_those_of_fairseq(translated):
    found = translated(*(f"train.{key}=null" for key in ("seed", "max_source_positions", "attn_type")))
    assert (found["seed"], found["train_frames_per_second"]) == (1, 300)
    assert set(found["attention"].values()) == {"softmax"}


def test_a_shortest_recipe_has_a_result(write, shortest, tmp_path):
    recipe = load_recipe(write(shortest), tmp_path / "runs")
    for name in ("train", "test"):
        (tmp_path / f"{name}.tsv").write_text(MANIFEST, encoding="utf-8")
    recipe.run.mkdir(parents=True)
    (recipe.run / "train.log").write_text(TRAIN_LOG, encoding="utf-8")
    recipe.makes("generate").write_text(RIGHT, encoding="utf-8")
    found = result(recipe)
    assert (found["seed"], found["arch"], found["subset"]) == (1, "s2t_transformer_mla_tiny", "test")
    assert (found["bleu"], found["train_frames_per_second"]) == (100.0, 300)
