"""Files are written completely or not at all."""

from pathlib import Path

import pytest

from mla_fairseq.files import write_json, write_text


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
