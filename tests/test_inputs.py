"""What is said of an input that cannot be read is true: only one that does not exist "is missing"."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_fairseq.data import archive, config, corpus, ljspeech, manifest, vocabulary
from mla_fairseq.evaluation import instances, offline, quality_latency, training_log
from mla_fairseq.files import read_text, unusable
from mla_fairseq.recipes.recipe import find_recipe
from mla_fairseq.speech import GlobalCMVN, audio_length, load_audio
from mla_fairseq.synthesis.vocoder import hifi_gan

READERS: dict[str, Callable[[Path], object]] = {
    "text": read_text,
    "manifest": lambda path: list(manifest.rows(path)),
    "configuration": config.read,
    "archive": archive.members,
    "array": lambda path: archive.read(path, 0, 1),
    "statistics": GlobalCMVN.load,
    "vocabulary": vocabulary.GivenVocabulary.read,
    "listing": corpus.read_part,
    "clip": ljspeech._audio,
    "audio": load_audio,
    "audio of a corpus": audio_length,
    "log": instances.find_log,
    "training log": training_log.read_training_log,
    "points": quality_latency.read_points,
    "translations": offline.read_generated,
    "recipe": find_recipe,
    "vocoder": lambda path: hifi_gan(path, path),
}


def link_to_itself(path: Path) -> Path:
    path.symlink_to(path.name)
    return path


def link_to_nothing(path: Path) -> Path:
    path.symlink_to("nowhere")
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


KINDS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda path: path, "is missing|No such file"),
    "pipe": (pipe, "is not a regular file"),
    "link to itself": (link_to_itself, r"cannot be opened \(Too many levels of symbolic links\)"),
    "link to nothing": (link_to_nothing, "is a link to nothing"),
    "long name": (lambda path: path.with_name("x" * 300), r"cannot be opened \(File name too long\)"),
    "file in a file": (lambda path: Path(__file__) / "x", r"cannot be opened \(Not a directory\)"),
    "null character": (lambda path: path.with_name("a\0b"), r"cannot be opened \(embedded null byte\)"),
}


@pytest.mark.parametrize(("make", "message"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_the_reason_is_the_true_one(
    tmp_path: Path, read: Callable[[Path], object], make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as ending:
        read(make(tmp_path / "input"))
    assert "\n" not in str(ending.value)


def test_a_file_that_must_not_be_read_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # for root, it may always be read
    (tmp_path / "a.tsv").write_text("id\n")
    assert unusable(tmp_path / "a.tsv") == "cannot be opened (Permission denied)"
