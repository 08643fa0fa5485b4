"""Files are written completely or not at all."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mla_fairseq.averaging import save_checkpoint
from mla_fairseq.data.archive import Writer
from mla_fairseq.evaluation.pictures import save
from mla_fairseq.evaluation.programs import mark_done, run_program
from mla_fairseq.files import (
    check_folder,
    file_name,
    inside,
    make_folder,
    naming,
    read_json,
    read_text,
    read_tsv,
    replacing,
    user_dir,
    write_bytes,
    write_json,
    write_text,
)
from mla_fairseq.speech import GlobalCMVN

ROOT = Path(__file__).resolve().parents[1]


def test_a_file_is_replaced_completely(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.txt"
    write_text(path, "ü\r\n")
    write_text(path, "two\n")
    assert path.read_bytes() == b"two\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "old"


def test_json_that_cannot_be_written_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": "ü"})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert path.read_text(encoding="utf-8") == '{\n  "old": "ü"\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_the_user_dir_is_relative_below_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert user_dir() == "mla_fairseq"
    monkeypatch.chdir(tmp_path)
    assert user_dir() == str(ROOT / "mla_fairseq")


def add_to_archive(path: Path) -> None:
    with Writer(path) as archive:
        archive.add("a.npy", np.zeros(2))


def save_statistics(path: Path) -> None:
    with replacing(path) as part:
        GlobalCMVN().add(np.ones((2, 80))).save(part)


WRITERS: dict[str, Callable[[Path], object]] = {
    "text.txt": lambda path: write_text(path, "new"),
    "bytes.wav": lambda path: write_bytes(path, b"new"),
    "value.json": lambda path: write_json(path, {}),
    "archive.zip": add_to_archive,
    "gcmvn.npz": save_statistics,
    "checkpoint.pt": lambda path: save_checkpoint({"model": {}}, path),
    "picture.png": lambda path: save(Figure(), path.with_suffix("")),
    "made-by": lambda path: mark_done(path.parent, "stamp"),
    "program.log": lambda path: run_program(["python", "-V"], path),
    "output.txt": lambda path: run_program(["python", "-V"], path.parent / "log", path),
}


def make_link(path: Path) -> None:
    path.symlink_to(path.with_name("target"))


@pytest.mark.parametrize(
    ("make", "kind"),
    [(make_link, "a link"), (os.mkfifo, "a device or pipe"), (Path.mkdir, "a folder")],
    ids=["link", "pipe", "folder"],
)
@pytest.mark.parametrize("name", WRITERS)
def test_no_writer_replaces_what_is_not_a_file(tmp_path: Path, name: str, make: Callable, kind: str) -> None:
    make(path := tmp_path / name)
    before = os.lstat(path)
    with pytest.raises(ValueError, match=f"the output .*{name} is {kind}: name a new file, or one to replace"):
        WRITERS[name](path)
    assert os.lstat(path) == before
    assert {one.name for one in tmp_path.iterdir()} <= {name, "log"}


@pytest.mark.parametrize("name", WRITERS)
def test_no_writer_writes_through_a_link_with_a_temporary_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / f"{name}.part").symlink_to(tmp_path / "target")
    WRITERS[name](tmp_path / name)
    assert (tmp_path / "target").read_text() == "old"
    assert (tmp_path / name).is_file() and not (tmp_path / name).is_symlink()


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_names_the_file_that_has_the_name_of_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ValueError, match=r"the output .*/a is not a folder: name a folder, or a new one"):
        WRITERS[name](tmp_path / "a" / "b" / name)
    assert (tmp_path / "a").read_text() == "old"


def test_folders_may_be_links(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    write_text(tmp_path / "runs" / "one" / "a.txt", "text")
    assert (tmp_path / "disk" / "one" / "a.txt").read_text() == "text"
    assert make_folder(tmp_path / "runs") == check_folder(tmp_path / "runs") == tmp_path / "runs"
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    with pytest.raises(ValueError, match="gone is not a folder"):
        make_folder(tmp_path / "gone" / "x")


def test_a_full_disk_is_reported_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"), replacing(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/x", "a/b", "a\nb", "a\tb", "a\0b", "\x85", "\ud800", 7, None, ["a"]]
)
def test_a_name_from_a_file_is_one_name(name: object) -> None:
    with pytest.raises(ValueError, match=r"^an id in x\.tsv cannot name a file \(.*\): use one name without slashes"):
        file_name(name, "an id in x.tsv")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/../../b", "a\nb", "a\0b", 7, None, ["a"]])
def test_a_path_from_a_file_stays_inside_its_folder(tmp_path: Path, name: object) -> None:
    with pytest.raises(ValueError, match=r"^a wav in x\.yaml is not a path inside .* \(.*\): "):
        inside(tmp_path, name, "a wav in x.yaml")


def test_a_name_that_no_file_system_takes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^an id in x\.tsv is too long for a file name \('é.*: use at most 200 bytes"):
        file_name("é" * 101, "an id in x.tsv")
    assert file_name("é" * 100, "") == "é" * 100


def test_usual_names_are_kept(tmp_path: Path) -> None:
    for name in ("ted_1_0", "a.b", "..a", "é 漢\u200c字", "-x"):
        assert file_name(name, "") == name
        assert inside(tmp_path, f"talks/{name}", "") == tmp_path / "talks" / name


@pytest.mark.parametrize("write", [naming, replacing])
def test_an_incomplete_write_of_numpy_is_reported_with_the_file(tmp_path: Path, write: Callable) -> None:
    """numpy's error of a full disk has no number and no name."""
    message = r"is the disk full\? \(9 requested and 2 written\): '.*a\.npy'"
    with pytest.raises(OSError, match=message), write(tmp_path / "a.npy"):
        raise OSError("9 requested and 2 written")
    assert list(tmp_path.iterdir()) == []


def test_the_place_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("eins\nzwei\nfünf\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 \(line 3, byte 11: 0xfc, .*\): convert it"):
        read_text(tmp_path / "a.txt")


def test_a_byte_order_mark_is_dropped_or_kept(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa")
    assert [read_text(tmp_path / "a.txt", mark=mark) for mark in (False, True)] == ["a", "\ufeffa"]


def test_quotes_and_long_texts_of_a_table_are_read(tmp_path: Path) -> None:
    long = "x" * 140_000  # Python's csv reads 131,072 characters
    (tmp_path / "a.tsv").write_text(f'id\ttext\n1\t"He said: ""no"\n2\t{long}\n3\n')
    assert read_tsv(tmp_path / "a.tsv") == [
        {"id": "1", "text": '"He said: ""no"'},
        {"id": "2", "text": long},
        {"id": "3"},
    ]


def test_a_table_that_may_be_cut_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "table.tsv"
    path.write_text("a\tb\n1\t2\n")
    assert read_tsv(path) == [{"a": "1", "b": "2"}] and not caplog.messages
    path.write_text("a\tb\n1\t23\n4\t5")
    read_tsv(path)
    assert caplog.messages == [f"{path} does not end with a line break: if it was cut short, make it again"]


def test_broken_json_is_reported_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON \(Expecting value: line 1 column 7"):
        read_json(tmp_path / "a.json")


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"a\.txt is not a regular file: copy it again, or correct its name"):
        read_text(tmp_path / "a.txt")
