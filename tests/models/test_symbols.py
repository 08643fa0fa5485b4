"""A model is only used with the symbols that it was trained with: a dictionary in another order is refused."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.models.conftest import SIZES, TRAINING
from tests.programs import Done, run

OTHER = r"trained with other symbols than those of .*other \(symbol 4 is 'w00' there and 'w27' here\): use the folder"


@pytest.fixture
def other(corpus: Path, tmp_path: Path) -> Path:
    """Return the data folder with its dictionary in the reverse order."""
    folder = Path(shutil.copytree(corpus, tmp_path / "other"))
    lines = (folder / "dict.txt").read_text().splitlines(keepends=True)
    (folder / "dict.txt").write_text("".join(reversed(lines)))
    return folder


def training(folder: Path, *flags: object) -> Done:
    task = ["--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla"]
    return run("fairseq-train", folder, task, SIZES, TRAINING, *flags, "--max-update", 7)


def generating(folder: Path, path: Path) -> Done:
    task = ["--task", "speech_to_text_mla", "--gen-subset", "dev", "--path", path, "--cpu", "--num-workers", 0]
    return run("fairseq-generate", folder, task, "--max-len-b", 5)


def check_refused(done: Done) -> None:
    assert done.code == 1
    assert re.search(OTHER, done.last_line), done.err


def test_translating_with_another_order_is_refused(train: Callable[..., Path], other: Path) -> None:
    check_refused(generating(other, train()))


@pytest.mark.parametrize("start", ["resume", "--finetune-from-model", "--restore-file"])
def test_training_on_with_another_order_is_refused(
    train: Callable[..., Path], other: Path, tmp_path: Path, start: str
) -> None:
    save = tmp_path / "model"
    save.mkdir()
    if start == "resume":
        shutil.copy(train(), save / "checkpoint_last.pt")
        check_refused(training(other, "--save-dir", save))
    else:
        check_refused(training(other, "--save-dir", save, start, train()))


def test_checkpoints_without_symbols_are_used_as_before(
    train: Callable[..., Path], generate: Callable[..., Done], other: Path, tmp_path: Path
) -> None:
    """Those of fairseq's task, and of older versions."""
    state = torch.load(train(), weights_only=True)
    assert state["task_state"].pop("symbols")[4:6] == ["w00", "w01"]
    torch.save(state, tmp_path / "old.pt")
    (other / ".prepared.json").unlink(missing_ok=True)
    done = generating(other, tmp_path / "old.pt")
    assert done.code == 0
    assert (done.out + done.err).count(f"the order of the dictionary in {other} cannot be checked") == 1
    (other / ".prepared.json").touch()
    done = generating(other, tmp_path / "old.pt")
    assert done.code == 0 and "cannot be checked" not in done.out + done.err
    # fairseq's own task ignores the symbols
    assert generate(train(), task="speech_to_text").code == 0


def test_weights_that_are_not_finite_are_refused(train: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    state = torch.load(train(), weights_only=True)
    state["model"]["decoder.layers.0.fc1.weight"][0, 0] = torch.nan
    torch.save(state, tmp_path / "nan.pt")
    done = generating(corpus, tmp_path / "nan.pt")
    assert done.code == 1
    assert "nan.pt has NaN or infinite numbers in 'decoder.layers.0.fc1.weight': use an earlier" in done.last_line
