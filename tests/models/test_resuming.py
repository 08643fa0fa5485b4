"""A training resumes from its newest whole checkpoint, and a trained model needs no file that it started from."""

import os
import shutil
import signal
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fairseq import checkpoint_utils, tasks
from fairseq.tasks import FairseqTask

from mla_fairseq.errors import UserError
from mla_fairseq.tasks.resuming import choose_checkpoint
from tests.models.conftest import SIZES, TRAINING, Build
from tests.processes import run_together
from tests.programs import ROOT, Done, run

LAST = "checkpoint_last.pt"
EVERY_TWO = "--save-interval-updates 2 --no-epoch-checkpoints"  # 4 updates are an epoch, which has no numbered file


def save(path: Path, updates: int, age: int = 0) -> None:
    """Write a small checkpoint that seems ``age`` seconds old."""
    torch.save({"model": {"w": torch.zeros(1000)}, "optimizer_history": [{"num_updates": updates}]}, path)
    os.utime(path, (1e9 - age, 1e9 - age))


def options(folder: Path, **changes: object) -> Namespace:
    return Namespace(**{"save_dir": str(folder), "restore_file": LAST, **changes})


@pytest.mark.parametrize(
    ("files", "broken", "chosen"),
    [
        pytest.param({LAST: (9, 0), "checkpoint_2_8.pt": (8, 9)}, [], (9, ""), id="whole"),
        pytest.param({LAST: (4, 9), "checkpoint_2_9.pt": (9, 5)}, [], (9, "older"), id="killed before the copy"),
        pytest.param({LAST: (4, 9), "checkpoint_best.pt": (9, 5)}, [], (9, "older"), id="killed after the best one"),
        pytest.param({LAST: (4, 5), "checkpoint_2_9.pt": (9, 9)}, [], (4, ""), id="an earlier one put back"),
        pytest.param({LAST: (9, 9), "checkpoint_1_2.pt": (2, 5)}, [], (9, ""), id="copied in another order"),
        pytest.param({"checkpoint_1_2.pt": (2, 0), "checkpoint1.pt": (4, 9)}, [], (4, "missing"), id="epoch's end"),
        pytest.param(
            {"checkpoint_9_90.pt": (90, 9), "checkpoint_10_95.pt": (95, 9)}, [], (95, "missing"), id="numbers"
        ),
        pytest.param({LAST: (9, 0), "checkpoint_2_8.pt": (8, 9)}, [LAST], (8, "broken"), id="broken"),
        pytest.param(
            {"checkpoint_1_2.pt": (2, 0), "checkpoint_2_8.pt": (8, 0), "checkpoint_best.pt": (3, 0)},
            ["checkpoint_2_8.pt"],
            (3, "missing"),
            id="the best one",
        ),
    ],
)
def test_the_newest_whole_checkpoint_is_chosen(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    files: dict[str, tuple[int, int]],
    broken: list[str],
    chosen: tuple[int, str],
) -> None:
    for name, (updates, age) in files.items():
        save(tmp_path / name, updates, age)
        if name in broken:
            os.truncate(tmp_path / name, 2000)
    choose_checkpoint(options(tmp_path))
    updates, reason = chosen
    assert torch.load(tmp_path / LAST)["optimizer_history"][-1]["num_updates"] == updates
    assert (f"{tmp_path / LAST} is {reason}: resuming from {tmp_path}/" in caplog.text) == bool(reason)
    assert f"(update {updates})" in caplog.text or not reason
    assert set(os.listdir(tmp_path)) == {LAST, *files}


@pytest.mark.parametrize(
    "changes", [{"restore_file": "other.pt"}, {"path": "a.pt"}, {"checkpoint_suffix": "-shard0"}, {"save_dir": None}]
)
def test_only_a_training_that_resumes_is_changed(tmp_path: Path, changes: dict[str, object]) -> None:
    save(tmp_path / "checkpoint_1_2.pt", 2)
    choose_checkpoint(options(tmp_path, **changes))
    assert os.listdir(tmp_path) == ["checkpoint_1_2.pt"]


@pytest.mark.parametrize("name", [LAST, "checkpoint_best.pt", "checkpoint7.pt", "checkpoint_1_2.pt"])
def test_a_folder_of_broken_checkpoints_is_not_started_from_scratch(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(UserError, match=rf"^error: {tmp_path} has no whole checkpoint to resume from: give another"):
        choose_checkpoint(options(tmp_path))
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_not_resumed_from(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / LAST)
    save(tmp_path / "checkpoint_2_8.pt", 8)
    with pytest.raises(UserError, match=f"{LAST} is (a folder|not a regular file|a pipe)[^:]*: delete it"):
        choose_checkpoint(options(tmp_path))


def test_a_new_folder_is_left_alone(tmp_path: Path) -> None:
    choose_checkpoint(options(tmp_path / "new"))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def resume(corpus: Path) -> Callable[..., Done]:
    """``resume(folder, updates)``: continue a training to as many updates."""

    def resume(folder: Path, updates: int, *flags: object, program: str | Path = "fairseq-train") -> Done:
        command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
        more = ["--user-dir", ROOT / "mla_fairseq"] if program != "fairseq-train" else []
        return run(program, command, EVERY_TWO.split(), "--max-update", updates, "--save-dir", folder, *flags, *more)

    return resume


def same_training(one: Path, other: Path) -> bool:
    """Tell whether two checkpoints have equal weights, and equal states of the optimizer."""
    states = [torch.load(path, weights_only=True) for path in (one, other)]
    first, second = (
        {**state["model"], **{f"{n} {key}": tensor for n, per in state["last_optimizer_state"]["state"].items()
                              for key, tensor in per.items() if isinstance(tensor, torch.Tensor)}}
        for state in states
    )  # fmt: skip
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


@pytest.fixture(scope="module")
def undisturbed(resume: Callable[..., Done], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for 10 updates; return the folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert resume(folder, 10).code == 0
    return folder


SLOW = pytest.mark.slow


@SLOW
def test_all_processes_of_a_training_resume_from_the_same_checkpoint(corpus: Path, tmp_path: Path) -> None:
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
    command += ["--save-interval-updates", 3, "--ddp-backend", "legacy_ddp"]  # 2 updates are an epoch
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    first = run_together("fairseq-train", command, "--max-update", 3, "--save-dir", whole)
    assert [done.code for done in first] == [0, 0], first
    shutil.copytree(whole, broken)
    os.truncate(broken / LAST, 999)
    for folder in (whole, broken):
        second = run_together("fairseq-train", command, "--max-update", 5, "--save-dir", folder)
        assert [done.code for done in second] == [0, 0], second
    assert [f"{LAST} is broken: resuming from" in done.out + done.err for done in second] == [True, False]
    assert same_training(broken / LAST, whole / LAST)


@pytest.mark.parametrize(
    "moment", ["during a copy", pytest.param("before a copy", marks=SLOW), pytest.param("during a save", marks=SLOW)]
)
def test_a_training_killed_while_it_saves_continues_to_the_same_weights(
    resume: Callable[..., Done], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def die(source: object, target: object, *more: object) -> None:
        if (tmp_path / "checkpoint_2_6.pt").exists() or moment == "during a save":
            if moment == "during a copy":
                Path(target).write_bytes(Path(source).read_bytes()[:9999])
            os.kill(os.getpid(), signal.SIGKILL)
        copy(source, target)

    copy = shutil.copyfile
    with monkeypatch.context() as patch:
        patch.setattr(*((torch, "save") if moment == "during a save" else (shutil, "copyfile")), die)
        assert resume(tmp_path, 10).code == -signal.SIGKILL
    done = resume(tmp_path, 10)
    assert done.code == 0, done.err
    resumed = f"{LAST} is older: resuming from {tmp_path}/checkpoint_2_6.pt (update 6)" in done.out
    assert resumed == (moment != "during a save")
    assert same_training(tmp_path / LAST, undisturbed / LAST)
    assert {path.name for path in tmp_path.glob("*.pt*")} == {path.name for path in undisturbed.glob("*.pt*")}


def test_a_finished_training_stays_as_it_is(resume: Callable[..., Done], undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("*.pt")}
    done = resume(undisturbed, 10)
    assert done.code == 0 and "the training has 10 updates, and --max-update is 10: finished" in done.out
    assert {path: path.stat().st_mtime_ns for path in undisturbed.glob("*.pt")} == before


FULL_DISK = """
import resource
from fairseq_cli.train import cli_main
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
cli_main()
"""


def test_a_full_disk_is_one_line_and_the_training_continues(
    resume: Callable[..., Done], undisturbed: Path, tmp_path: Path
) -> None:
    assert resume(tmp_path, 4).code == 0
    before = set(os.listdir(tmp_path))
    (tmp_path / "full.py").write_text(FULL_DISK)
    done = resume(tmp_path, 10, program=tmp_path / "full.py")
    (tmp_path / "full.py").unlink()
    assert done.code == 1
    assert done.last_line.startswith(f"error: cannot save {tmp_path}/checkpoint_2_6.pt (")
    assert done.last_line.endswith("which resumes from the newest whole checkpoint")
    assert "Traceback" not in done.err + done.out
    assert set(os.listdir(tmp_path)) == before
    assert resume(tmp_path, 10).code == 0
    assert same_training(tmp_path / LAST, undisturbed / LAST)


def test_a_full_disk_during_the_copy_leaves_the_former_last_checkpoint(
    resume: Callable[..., Done], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(source: object, target: object) -> None:
        if not (tmp_path / "checkpoint_2_6.pt").exists():
            return copy(source, target)
        Path(target).write_bytes(Path(source).read_bytes()[:9999])
        raise OSError(28, "No space left on device")

    copy = shutil.copyfile
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", fill)
        done = resume(tmp_path, 10)
    assert done.code == 1
    assert done.last_line.startswith(f"error: cannot save {tmp_path / LAST} (No space left on device)")
    assert "Traceback" not in done.err + done.out
    assert resume(tmp_path, 10).code == 0
    assert same_training(tmp_path / LAST, undisturbed / LAST)


def mask_features(folder: Path) -> None:
    """Let training sets of a data folder be masked by SpecAugment."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["transforms"] = {"_train": ["specaugment"]}
    masks = {"freq_mask_N": 1, "freq_mask_F": 3, "time_mask_N": 1, "time_mask_T": 9, "time_mask_p": 1.0}
    config |= {"audio_root": "", "specaugment": {"time_warp_W": 0, **masks}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def masked_set(corpus: Path, tmp_path: Path, build: Build) -> Callable[..., FairseqTask]:
    """``masked_set(seed)``: a task with a training set that SpecAugment masks."""
    mask_features(shutil.copytree(corpus, tmp_path / "data"))
    options = {**vars(build().args), "task": "speech_to_text_mla", "data": str(tmp_path / "data")}

    def load(seed: int = 1) -> FairseqTask:
        task = tasks.setup_task(Namespace(**{**options, "seed": seed}))
        task.load_dataset("train")
        return task

    return load


def test_masks_depend_on_seed_epoch_and_utterance_only(masked_set: Callable[..., FairseqTask]) -> None:
    def masked(task: FairseqTask, epoch: int, *indices: int) -> list[bytes]:
        dataset = task.dataset("train")
        dataset.set_epoch(epoch)
        return [dataset[index].source.numpy().tobytes() for index in indices]

    first, second, third = map(masked_set, (1, 1, 2))
    before, state = masked(first, 2, 3, 4, 5), np.random.get_state()[1].tolist()
    assert masked(second, 2, 5, 3) == [before[2], before[0]]
    assert np.random.get_state()[1].tolist() == state
    assert masked(second, 3, 3, 4, 5) != before != masked(third, 2, 3, 4, 5)


def test_data_workers_draw_the_masks_of_every_epoch(masked_set: Callable[..., FairseqTask]) -> None:
    """fairseq keeps its workers for all epochs."""
    seen = []
    for workers in (0, 2):
        task = masked_set()
        batches = task.get_batch_iterator(task.dataset("train"), max_sentences=4, num_workers=workers)
        epochs = [list(batches.next_epoch_itr(shuffle=False)) for _ in range(3)]
        seen.append([[batch["net_input"]["src_tokens"].numpy().tobytes() for batch in epoch] for epoch in epochs])
    assert seen[0] == seen[1]
    assert len({tuple(epoch) for epoch in seen[0]}) == 3


@pytest.mark.parametrize(
    "flag",
    [
        "finetune-from-model",
        pytest.param("load-pretrained-encoder-from", marks=SLOW),
        pytest.param("restore-file", marks=SLOW),
    ],
)
def test_a_model_does_not_need_the_file_that_its_training_started_from(
    resume: Callable[..., Done], undisturbed: Path, corpus: Path, tmp_path: Path, flag: str
) -> None:
    start = [f"--{flag}", shutil.copy(undisturbed / LAST, tmp_path / "start.pt")]
    assert resume(tmp_path / "tuned", 12, *start).code == 0
    (tmp_path / "start.pt").unlink()
    tuned = tmp_path / "tuned" / LAST
    models, _, _ = checkpoint_utils.load_model_ensemble_and_task([str(tuned)])  # as agents and mla-synthesize do
    assert models[0].encoder is not None
    task = ["--task", "speech_to_text_mla", "--valid-subset", "dev"]
    done = run("fairseq-validate", corpus, "--path", tuned, task, "--cpu", "--batch-size", 4)
    assert done.code == 0, done.err
    done = resume(tuned.parent, 14, *(start if flag != "restore-file" else []))
    assert done.code == 0, done.err
    assert torch.load(tuned, weights_only=True)["optimizer_history"][-1]["num_updates"] == 14
