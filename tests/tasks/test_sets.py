"""Several sets at once give what one set with all their rows gives: the same rows, batches, texts and logs."""

import json
import shlex
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mla_fairseq.data.prepare_speech import Options, prepare
from mla_fairseq.errors import UserError
from mla_fairseq.synthesis.speaker import Speaker
from mla_fairseq.tasks.sets import set_names
from mla_fairseq.tasks.speech_to_text_mla import SpeechToTextMLATask
from tests.data.voice import write_voice
from tests.models import test_speech_commands as speech
from tests.models.conftest import SIZES, TRAINING, write_corpus
from tests.programs import ROOT, run


def divide(folder: Path, name: str, parts: dict[str, str]) -> None:
    """Divide a set into two; ``parts`` maps their names to their target languages."""
    header, *lines = (folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
    middle = len(lines) // 3
    place = header.split("\t").index("tgt_lang")
    for (part, language), rows in zip(parts.items(), (lines[:middle], lines[middle:]), strict=True):
        cells = [row.split("\t") for row in rows]
        rows = ["\t".join([*row[:place], language, *row[place + 1 :]]) for row in cells]
        (folder / f"{part}.tsv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose sets are also there in two parts."""
    folder = write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 16, "dev": 9})
    divide(folder, "train", {"train_x": "de", "train_y": "fr"})
    divide(folder, "dev", {"dev_x": "de", "dev_y": "fr"})
    return folder


def load(folder: Path, split: str, epoch: int = 1, **config: Any) -> tuple[SpeechToTextMLATask, Any]:
    """Return the task with a set; ``config`` is added to the data configuration."""
    settings = yaml.safe_load((folder / "config.yaml").read_text()) | config
    (folder / "changed.yaml").write_text(yaml.safe_dump(settings))
    task = SpeechToTextMLATask.setup_task(Namespace(data=str(folder), config_yaml="changed.yaml", seed=1))
    task.load_dataset(split, epoch=epoch)
    return task, task.dataset(split)


def batches(task: SpeechToTextMLATask, dataset: Any) -> list[dict[str, Any]]:
    limits = {"max_tokens": 150, "max_positions": (100, 100), "required_batch_size_multiple": 8, "seed": 1}
    return list(task.get_batch_iterator(dataset, **limits).next_epoch_itr(shuffle=False))


@pytest.mark.parametrize("name", ["train", "dev"])
def test_two_sets_are_one(folder: Path, name: str) -> None:
    whole_task, whole = load(folder, name)
    task, both = load(folder, f"{name}_x,{name}_y")
    assert both.is_train_split == (name == "train")
    for column in ("tgt_texts", "src_texts", "audio_paths", "ids"):
        assert getattr(both, column) == getattr(whole, column)
    found, expected = batches(task, both), batches(whole_task, whole)
    assert len(expected) > 2
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one["id"].tolist() == other["id"].tolist()
        assert one["target"].equal(other["target"])
        assert one["net_input"]["src_tokens"].equal(other["net_input"]["src_tokens"])


def test_sampling_alpha_draws_small_sets_more_often(folder: Path) -> None:
    task, both = load(folder, "train_x,train_y", sampling_alpha=0.0)
    parts = [load(folder, f"train_{name}")[1] for name in "xy"]
    assert len(both.datasets[0]) > len(parts[0]) and len(both.datasets[1]) < len(parts[1])
    drawn = both.audio_paths
    for row in range(len(both)):
        assert both[row].index == row
        assert task.target_dictionary.string(both[row].target) == both.tgt_texts[row]
    both.set_epoch(2)
    assert both.audio_paths != drawn
    rows = [row for batch in batches(task, both) for row in batch["id"].tolist()]
    assert len(set(rows)) == len(rows) > 10  # fairseq leaves out what makes no multiple of 8


@pytest.mark.parametrize(
    ("split", "config", "message"),
    [
        ("train_x,dev", {}, "train_x,dev mixes training sets with others: load train_x by another command"),
        ("dev,train_x", {}, "dev,train_x mixes training sets with others: load train_x by another command"),
        ("dev_x,dev_z", {}, "dev_z.tsv is missing"),
        ("train_x,train_y", {"sampling_alpha": "much"}, "sampling_alpha is not a number of at least 0 ('much')"),
        ("train_x,train_y", {"sampling_alpha": -1}, "sampling_alpha is not a number of at least 0 (-1)"),
        ("train_x,train_xy", {"sampling_alpha": 0.5}, "train_xy.tsv has a-de, a-fr: divide the set"),
    ],
)
def test_sets_that_cannot_be_combined_are_one_line(
    folder: Path, split: str, config: dict[str, Any], message: str
) -> None:
    lines = [(folder / f"train_{name}.tsv").read_text(encoding="utf-8") for name in "xy"]
    (folder / "train_xy.tsv").write_text(lines[0] + lines[1].partition("\n")[2], encoding="utf-8")
    with pytest.raises(UserError) as ending:
        load(folder, split, **config)
    assert message in str(ending.value)


def test_commands_take_several_sets(folder: Path, tmp_path: Path) -> None:
    """The log of simultaneous decoding has the rows of all sets, with their references."""
    task = [folder, "--task", "speech_to_text_mla"]
    flags = ["--arch", "s2t_transformer_simul_mla", *SIZES, *TRAINING, "--max-update", 4, "--save-dir", tmp_path]
    flags = [flag for flag in flags if flag != "--disable-validation"]
    sets = ["--train-subset", "train_x,train_y", "--valid-subset", "dev_x,dev_y"]
    done = run("fairseq-train", task, flags, sets, "--energy-bias")
    assert done.code == 0, done.err[-3000:]
    assert "'dev_y' subset" in done.out
    logs, lines = {}, {}
    for subset in ("dev", "dev_x,dev_y"):
        log = tmp_path / f"{subset}.log"
        decode = ["--gen-subset", subset, "--path", tmp_path / "checkpoint_last.pt", "--cpu", "--beam", 1]
        simul = ["--simul-waitk-lagging", 2, "--simul-log", log, "--max-len-b", 8]
        done = run("fairseq-generate", task, decode, simul, "--num-workers", 0)
        assert done.code == 0, done.err[-3000:]
        logs[subset] = [json.loads(line) for line in log.read_text().splitlines()]
        lines[subset] = sorted(done.lines("D-") + done.lines("T-"))
    assert len(logs["dev"]) == 9
    assert logs["dev"] == logs["dev_x,dev_y"]
    assert lines["dev"] == lines["dev_x,dev_y"]


@pytest.mark.slow
def test_several_sets_of_one_speaker(tmp_path: Path) -> None:
    data = prepare(write_voice(tmp_path / "voice"), tmp_path / "data", Options(dev=2, test=3)).parent
    divide(data, "train", {"train_x": "en", "train_y": "en"})
    text = (data / "config.yaml").read_text()
    (data / "sampled.yaml").write_text(text + "sampling_alpha: 0.5\n")
    training = speech.TRAINING.replace("--train-subset train ", "--train-subset train_x,train_y ")
    flags = "--criterion tacotron2_mla --length-predictor --max-update 3 --valid-subset dev,test"
    for config in ("config.yaml", "sampled.yaml"):
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        command = shlex.split(f"{training} {speech.SIZES} {flags} --config-yaml {config}")
        done = run("fairseq-train", data, command, "--save-dir", tmp_path / "model", cwd=ROOT)
        assert done.code == 0, done.err[-3000:]
    speaker = Speaker(tmp_path / "model/checkpoint_last.pt", data)
    spoken = list(speaker.synthesize_set("dev,test", 10_000, need_attn=False))
    alone = [one for name in ("dev", "test") for one in speaker.synthesize_set(name, 10_000, need_attn=False)]
    texts = [{one["id"]: one["text"] for one in found} for found in (spoken, alone)]
    assert len(spoken) == 5
    assert texts[0] == texts[1]
    with pytest.raises(ValueError, match=r"dev,dev has 2 utterances with the id .*: synthesize one set at a time"):
        list(speaker.synthesize_set("dev,dev", 10_000))


@pytest.mark.parametrize("names", ["a,", ",a", "a,,b", ""])
def test_an_empty_name_in_a_list_of_sets_is_refused(names: str) -> None:
    with pytest.raises(UserError, match=f"^error: the list of sets has an empty name \\('{names}'\\): remove a comma"):
        set_names(names)
