"""The task: fairseq's dataset on a prepared folder that may be moved, and faults reported in one line."""

import os
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("fairseq")

from mla_fairseq.data.mustc import MuSTC
from mla_fairseq.data.prepare import ARCHIVE, Options, prepare
from mla_fairseq.data.vocabulary import Vocabulary
from mla_fairseq.errors import UserError
from mla_fairseq.speech import filter_banks, read_audio
from mla_fairseq.tasks.speech_to_text_mla import SpeechToTextMLATask

OPTIONS = Options(vocabulary=Vocabulary("char"), specaugment="none")
TOLERANCE = 0.01  # fairseq takes an utterance's variance as a difference of two float32 sums


def load(folder: Path | str, split: str = "dev_st", config: str = "config_st.yaml"):
    """Return fairseq's dataset for a split of a prepared folder."""
    task = SpeechToTextMLATask.setup_task(Namespace(data=str(folder), config_yaml=config, seed=1))
    task.load_dataset(split)
    return task.datasets[split]


def normal(frames: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return (frames - mean) / std


@pytest.mark.parametrize("cmvn", ["utterance", "global"])
def test_fairseq_sees_normalised_features_and_the_text(pair: Path, cmvn: str) -> None:
    prepare(pair, None, replace(OPTIONS, cmvn=cmvn))
    dataset, segments = load(pair, "train_st"), MuSTC(pair).read("train")
    assert len(dataset) == len(segments)
    for item, segment in zip(dataset, segments, strict=True):
        frames = filter_banks(read_audio(segment.wav, segment.start, segment.length))
        given = np.load(pair / "gcmvn.npz") if cmvn == "global" else {"mean": frames.mean(0), "std": frames.std(0)}
        assert np.allclose(item.source.numpy(), normal(frames, given["mean"], given["std"]), atol=TOLERANCE)
        assert dataset.tgt_dict.string(item.target, "sentencepiece") == segment.target


@pytest.mark.parametrize("cmvn", ["utterance", "global"])
def test_the_folder_can_be_moved(pair: Path, cmvn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(pair, None, replace(OPTIONS, cmvn=cmvn))
    before = load(pair)[2]
    moved = Path(shutil.move(pair, tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    for folder in (moved, "elsewhere", os.path.relpath(moved)):
        after = load(folder)[2]
        assert after.source.equal(before.source)
        assert after.target.equal(before.target)


def test_files_of_the_working_directory_are_not_used(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(pair, None, replace(OPTIONS, cmvn="global"))
    here = tmp_path / "another data folder"
    here.mkdir()
    for name in ("spm_char_st.model", "gcmvn.npz", ARCHIVE):
        (here / name).write_bytes(b"not this one")
    monkeypatch.chdir(here)
    assert len(load(pair)[0].target) > 10


def test_only_training_data_is_masked(pair: Path) -> None:
    prepare(pair, None, replace(OPTIONS, specaugment="ld"))
    assert "SpecAugmentTransform" in repr(load(pair, "train_st"))
    assert "SpecAugmentTransform" not in repr(load(pair, "dev_st"))


def test_training_data_is_not_masked_in_decoding(pair: Path) -> None:
    prepare(pair, None, replace(OPTIONS, specaugment="ld"))
    args = Namespace(data=str(pair), config_yaml="config_st.yaml", seed=1, path="")
    task = SpeechToTextMLATask.setup_task(args)
    task.load_dataset("train_st")
    dataset = task.datasets["train_st"]
    assert "UtteranceCMVN" in repr(dataset) and "SpecAugmentTransform" not in repr(dataset)
    batches = task.get_batch_iterator(dataset, max_sentences=5, required_batch_size_multiple=8).frozen_batches
    assert sum(map(len, batches)) == len(dataset)


def test_absolute_paths_stay(pair: Path, tmp_path: Path) -> None:
    """fairseq's preparation scripts write absolute paths."""
    prepare(pair, tmp_path / "features", OPTIONS)
    shutil.copytree(tmp_path / "features", tmp_path / "manifests", ignore=shutil.ignore_patterns("*.zip"))
    config = tmp_path / "manifests" / "config_st.yaml"
    config.write_text(yaml.dump(yaml.safe_load(config.read_text()) | {"audio_root": str(tmp_path / "features")}))
    assert load(tmp_path / "manifests")[0].source.equal(load(tmp_path / "features")[0].source)


def cut_archive(folder: Path) -> None:
    os.truncate(folder / ARCHIVE, 10_000)


def swap_archive(folder: Path) -> None:
    from mla_fairseq.data import archive

    (folder / ARCHIVE).unlink()
    with archive.Writer(folder / ARCHIVE) as writer:
        writer.add("other.npy", np.zeros((7, 80), np.float32))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(cut_archive, r"fbank80\.zip \(10000 bytes\) is not a complete zip", id="truncated archive"),
        pytest.param(lambda folder: (folder / ARCHIVE).unlink(), r"fbank80\.zip is missing", id="no archive"),
        pytest.param(swap_archive, r"dev_st\.tsv does not match .*fbank80\.zip \(\d places", id="another's archive"),
        pytest.param(
            lambda folder: (folder / "dev_st.tsv").unlink(),
            r"dev_st\.tsv is missing \(manifests in this folder: train_st\.tsv, tst-COMMON_st\.tsv\)",
            id="no manifest",
        ),
        pytest.param(
            lambda folder: (folder / "config_st.yaml").unlink(),
            r"config_st\.yaml is missing \(configurations in this folder: none\)",
            id="no configuration",
        ),
        pytest.param(
            lambda folder: (folder / "spm_char_st.txt").unlink(), r"spm_char_st\.txt is missing", id="no dictionary"
        ),
        pytest.param(
            lambda folder: (folder / "spm_char_st.model").unlink(), r"spm_char_st\.model is missing", id="no pieces"
        ),
        pytest.param(lambda folder: (folder / "gcmvn.npz").unlink(), r"gcmvn\.npz is missing", id="no statistics"),
        pytest.param(
            lambda folder: (folder / "config_st.yaml").write_text("a: [b"), "is not a data configuration", id="no yaml"
        ),
        pytest.param(
            lambda folder: (folder / "config_st.yaml").write_text(""), "is not a data configuration", id="empty yaml"
        ),
    ],
)
def test_faults_are_reported_in_one_line(pair: Path, damage, message: str) -> None:
    prepare(pair, None, replace(OPTIONS, cmvn="global"))
    damage(pair)
    with pytest.raises(UserError, match=rf"^error: .*{message}.*mla-prepare") as ending:
        load(pair)
    assert "\n" not in str(ending.value)
