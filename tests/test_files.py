"""Files are written completely or not at all."""

from pathlib import Path

import pytest

from mla_fairseq.files import user_dir, write_json, write_text

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
