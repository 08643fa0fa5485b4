"""A training that cannot start, or not as its flags ask for, ends with one line before its first update."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_fairseq.processes import locked
from tests.models.conftest import SIZES, TRAINING, write_corpus
from tests.programs import Done, run

SLOW = pytest.mark.slow
Start = Callable[..., Done]


@pytest.fixture
def start(corpus: Path, tmp_path: Path) -> Start:
    """``start(flags)``: train a small model for 8 updates in the folder ``tmp_path / "save"``."""

    def start(flags: str = "", data: Path = corpus, arch: str = "s2t_transformer_mla") -> Done:
        command = [data, "--task", "speech_to_text_mla", "--arch", arch, *SIZES, *TRAINING, "--max-update", 8]
        return run("fairseq-train", command, "--save-dir", tmp_path / "save", flags.split())

    return start


def check(done: Done, message: str) -> None:
    assert re.match(f"error: .*{re.escape(message)}", done.last_line), done.err
    assert done.code == 1


@pytest.fixture
def resumed(start: Start, train: Callable[..., Path], tmp_path: Path) -> Start:
    """``resumed(flags)``: resume a training of 6 updates with other flags."""
    shutil.copytree(train().parent, tmp_path / "save")
    return start


SAME = "give the same flags"


@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        (
            "--optimizer sgd --store-ema",
            ["(--optimizer adam, now sgd; --store-ema False, now True): " + SAME, "or train from scratch in another"],
        ),
        ("--memory-efficient-fp16", ["--memory-efficient-fp16 False, now True): " + SAME + ", add --reset-optimizer"]),
        *(
            pytest.param(flags, [message], marks=SLOW)
            for flags, message in [
                ("--optimizer sgd", f"(--optimizer adam, now sgd): {SAME}, add --reset-optimizer, or start from its w"),
                (
                    "--criterion label_smoothed_cross_entropy_mla",
                    f"(--criterion label_smoothed_cross_entropy, now label_smoothed_cross_entropy_mla): {SAME}, add",
                ),
                (
                    "--lr-scheduler inverse_sqrt --warmup-updates 3",
                    f"(--lr-scheduler fixed, now inverse_sqrt): {SAME}, add --reset-lr-scheduler, or start",
                ),
                ("--store-ema", f"(--store-ema False, now True): {SAME}, or train from scratch in another --save-dir"),
                (
                    "--share-decoder-input-output-embed",
                    f"(--share-decoder-input-output-embed False, now True): {SAME}, or train from scratch in another",
                ),
            ]
        ),
    ],
)
def test_a_training_that_cannot_resume_names_the_flags(resumed: Start, flags: str, messages: list[str]) -> None:
    done = resumed(flags)
    for message in messages:
        check(done, message)


@SLOW
@pytest.mark.parametrize(
    "flags",
    ["--optimizer sgd --reset-optimizer", "--lr-scheduler inverse_sqrt --warmup-updates 3 --reset-lr-scheduler"],
)
def test_a_training_resumes_with_other_flags_where_their_state_is_reset(resumed: Start, flags: str) -> None:
    done = resumed(flags)
    assert done.code == 0, done.err


def test_a_checkpoint_of_other_data_names_the_flag(start: Start, train: Callable[..., Path], tmp_path: Path) -> None:
    other = write_corpus(tmp_path, {"train": 6})  # of the same words
    path = train()
    message = f"{path} was saved in an epoch of other data: use the same data, add --reset-dataloader"
    check(start(f"--restore-file {path}", data=other), message)


def test_two_trainings_cannot_have_one_folder(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "save"
    with locked(folder / ".lock", folder):  # not inherited by the process that trains
        check(start(), f"--save-dir: {folder} is used by another run (process {os.getpid()}): wait for it, or stop it")
        assert start("--no-save").code == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--lr-scheduler inverse_sqrt --warmup-updates 0",
            "(ZeroDivisionError: float division by zero): correct the flags of the optim",
        ),
        (
            "--ignore-prefix-size 1",
            "--ignore-prefix-size is 1, but the targets have no tags of their language, so their first words would not "
            "count: give --ignore-prefix-size 0",
        ),
        ("--save-dir /proc/x", "--save-dir cannot be written, give another: [Errno 2] No such file or directory: '/pr"),
        (
            "--distributed-world-size 2",
            "decrease --distributed-world-size, or start all processes: world size is 2 but",
        ),
        ("--conv-kernel-sizes 5,x", "--conv-kernel-sizes must be whole numbers above 0, such as 5,5, but is 5,x"),
    ],
)
def test_flags_that_do_not_fit_end_a_training(start: Start, flags: str, message: str) -> None:
    check(start(flags), message)


def test_a_model_that_could_not_be_loaded_again_is_not_trained(corpus: Path, tmp_path: Path) -> None:
    message = "a checkpoint of this training has the architecture s2t_berard, which is not supported, because"
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_berard", *TRAINING, "--max-update", 8]
    check(run("fairseq-train", command, "--save-dir", tmp_path / "save"), message)


def test_a_metric_that_validation_does_not_compute_is_refused(corpus: Path, tmp_path: Path) -> None:
    training = [word for word in TRAINING if word != "--disable-validation"]
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *training]
    command += ["--save-dir", tmp_path, "--max-update", 1, "--best-checkpoint-metric"]
    message = "--best-checkpoint-metric bleu is not computed in validation: use one of accuracy, loss, n"
    check(run("fairseq-train", command, "bleu"), message)
    assert run("fairseq-train", command, "nll_loss").code == 0
