"""A user's mistake ends a command with one line that names the value and the fix."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mla_fairseq.checkpoints import load_checkpoint
from mla_fairseq.errors import UserError
from mla_fairseq.models.checks import load_strictly
from tests.models.conftest import FEATURES, SIZES, TRAINING, WORDS, Build, write_corpus
from tests.programs import Done, run

Train, Generate = Callable[..., Path], Callable[..., Done]


class Code:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def checkpoint(train: Train) -> Path:
    return train("--attn-type relu")


@pytest.fixture
def broken(tmp_path: Path, checkpoint: Path) -> dict[str, Path]:
    """Write files that are not checkpoints of fairseq, and return them by what is wrong with them."""
    files = {name: tmp_path / f"{name}.pt" for name in ("text", "empty", "cut", "list", "other", "number", "code")}
    files["text"].write_text("junk\n", encoding="utf-8")
    files["empty"].touch()
    files["cut"].write_bytes(checkpoint.read_bytes()[:20_000])
    torch.save([1, 2], files["list"])
    torch.save({"state_dict": {}}, files["other"])
    torch.save({"model": 3}, files["number"])
    torch.save({"model": {}, "args": Code(tmp_path / "it-ran")}, files["code"])
    return files


def check_one_line(done: Done, *texts: str) -> None:
    """Check that the command failed, and that its last line has all of these texts."""
    assert done.code == 1
    assert "Traceback" not in done.err
    assert done.last_line.startswith("error: ")
    assert [text for text in texts if text not in done.last_line] == [], done.last_line


@pytest.fixture
def fairseq_train(tmp_path: Path) -> Callable[..., Done]:
    """``fairseq_train(data, *flags)``; its output is in ``tmp_path / "model"``."""

    def fairseq_train(data: Path, *flags: object) -> Done:
        command = [data, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
        return run("fairseq-train", command, ["--max-update", 1, "--save-dir", tmp_path / "model"], *flags)

    return fairseq_train


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    """Copy the corpus, so that a test can break it."""
    copy = shutil.copytree(corpus, tmp_path / "data")
    config = copy / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace(str(corpus), str(copy)), encoding="utf-8")
    return copy


def test_a_missing_manifest_is_named_with_the_existing_ones(data: Path, fairseq_train) -> None:
    (data / "train.tsv").unlink()
    check_one_line(fairseq_train(data), f"{data}/train.tsv", "missing", "dev", "mla-prepare")


def test_a_missing_archive_is_named(data: Path, fairseq_train) -> None:
    (data / "features.zip").unlink()
    check_one_line(fairseq_train(data), f"{data}/features.zip", "missing", "mla-prepare")


@pytest.mark.parametrize("size", [0, 10, 3000, -1], ids=["empty", "header", "half", "last-byte"])
def test_a_truncated_archive_is_named(data: Path, fairseq_train, size: int) -> None:
    archive = data / "features.zip"
    archive.write_bytes(archive.read_bytes()[:size])
    check_one_line(fairseq_train(data), f"{archive}", f"{archive.stat().st_size} bytes", "mla-prepare")


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_features_are_named(data: Path, fairseq_train, workers: int) -> None:
    """In the first batch, which fairseq reads before the others, and in a thread or a worker process."""
    lines = (data / "train.tsv").read_text().splitlines()
    for number in range(1, 17) if workers == 0 else (9,):
        name, _, frames, *others = lines[number].split("\t")
        np.save(data / f"{name}.npy", np.full((int(frames), FEATURES), np.nan, np.float32))
        lines[number] = "\t".join([name, f"{name}.npy", frames, *others])
    (data / "train.tsv").write_text("\n".join(lines) + "\n")
    done = fairseq_train(data, "--num-workers", workers)
    check_one_line(done, f"{data}/train_", ".npy (utterance train_", "frame 0 of the features is not finite", "prepare")


def test_a_missing_subset_is_named(checkpoint: Path, generate: Generate) -> None:
    check_one_line(generate(checkpoint, "--gen-subset", "tst-COMMON"), "tst-COMMON.tsv", "missing", "dev")


def test_a_checkpoint_of_another_vocabulary_is_reported(checkpoint: Path, tmp_path: Path) -> None:
    other = write_corpus(tmp_path, {"dev": 2}, WORDS[:20])
    command = [other, "--task", "speech_to_text_mla", "--gen-subset", "dev", "--path", checkpoint, "--cpu"]
    done = run("fairseq-generate", command)
    check_one_line(done, "was trained with other symbols", "(32 there, 24 here)", "or with its vocabulary")


def test_a_checkpoint_of_other_sizes_is_reported(checkpoint: Path, corpus: Path, fairseq_train) -> None:
    done = fairseq_train(corpus, "--finetune-from-model", checkpoint, "--encoder-ffn-embed-dim", 48)
    check_one_line(done, "the checkpoint is of another model", "encoder.transformer_layers.0.fc1.weight", "--arch")


def test_a_missing_encoder_is_reported(corpus: Path, fairseq_train, tmp_path: Path) -> None:
    check_one_line(fairseq_train(corpus, "--load-pretrained-encoder-from", "no/asr.pt"), "no checkpoint no/asr.pt")
    assert not (tmp_path / "model" / "checkpoint_last.pt").exists()


def test_an_encoder_of_other_sizes_is_reported(checkpoint: Path, build: Build) -> None:
    with pytest.raises(UserError, match=r"another model .*conv_layers.0.weight.*check --arch"):
        build(flags=f"--load-pretrained-encoder-from {checkpoint} --conv-channels 24")


def test_an_encoder_with_more_layers_is_reported(checkpoint: Path, build: Build) -> None:
    with pytest.raises(UserError, match="Unexpected key"):
        build(flags=f"--load-pretrained-encoder-from {checkpoint} --encoder-layers 1")


@pytest.mark.parametrize("content", ["text", "empty", "cut", "list", "other", "number", "code"])
def test_a_file_that_is_no_checkpoint_is_named(broken: dict[str, Path], content: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(str(broken[content]))} is not a fairseq checkpoint"):
        load_checkpoint(broken[content])
    assert not (tmp_path / "it-ran").exists()


def test_fairseq_train_ends_with_the_line(broken: dict[str, Path], corpus: Path, fairseq_train) -> None:
    done = fairseq_train(corpus, "--load-pretrained-encoder-from", broken["text"])
    check_one_line(done, f"{broken['text']} is not a fairseq checkpoint", "fairseq-train")


@pytest.mark.parametrize("flag", ["--load-pretrained-encoder-from", "--finetune-from-model"])
def test_code_in_a_checkpoint_never_runs_in_training(
    broken: dict[str, Path], corpus: Path, fairseq_train, flag: str, tmp_path: Path
) -> None:
    assert fairseq_train(corpus, flag, broken["code"]).code == 1
    assert not (tmp_path / "it-ran").exists()


def test_code_in_a_checkpoint_never_runs_in_decoding(broken: dict[str, Path], generate: Generate, tmp_path) -> None:
    assert generate(broken["code"]).code == 1
    assert not (tmp_path / "it-ran").exists()


def test_the_code_runs_where_torch_allows_it(broken: dict[str, Path], tmp_path: Path) -> None:
    torch.load(broken["code"], weights_only=False)
    assert (tmp_path / "it-ran").exists()


def test_a_checkpoint_read_once_can_be_read_again(checkpoint: Path) -> None:
    load_checkpoint(checkpoint)
    assert torch.load(checkpoint, weights_only=True)["cfg"]


def test_the_first_difference_is_reported() -> None:
    sizes = r"differences: 1, the first: size mismatch for weight: .*\[2, 3\].*\[2, 4\]\)\): check"
    with pytest.raises(UserError, match=sizes):
        load_strictly(nn.Linear(4, 2).load_state_dict, nn.Linear(3, 2).state_dict())


def test_a_hundred_differences_are_reported_in_one_short_line() -> None:
    layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(100)))
    with pytest.raises(UserError) as raised:
        load_strictly(nn.Linear(2, 2).load_state_dict, layers.state_dict())
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_an_error_of_another_type_is_not_changed() -> None:
    def load(state: dict) -> None:
        raise KeyError("not a difference")

    with pytest.raises(KeyError, match="not a difference"):
        load_strictly(load, {})
