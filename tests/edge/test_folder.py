"""A folder of a model is whole or not there, and replaces only one of its kind."""

from pathlib import Path

import pytest

from mla_fairseq.edge.folder import check_replaceable, write_config, write_tokens, writing


def write(output: Path, piece: str = "a") -> None:
    with writing(output) as part:
        write_tokens(part / "tokens.txt", [piece])
        write_config(part, {"type": "test"})


def test_a_folder_is_written_and_replaced(tmp_path: Path) -> None:
    output = tmp_path / "new" / "model"
    write(output)
    write(output, "b")
    assert (output / "tokens.txt").read_text() == "b 0\n"
    assert [path.name for path in output.parent.iterdir()] == ["model"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "model"
    write(output)
    with pytest.raises(KeyboardInterrupt), writing(output) as part:
        write_tokens(part / "tokens.txt", ["half"])
        raise KeyboardInterrupt
    assert (output / "tokens.txt").read_text() == "a 0\n"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_left_of_a_killed_run_does_not_matter(tmp_path: Path) -> None:
    for suffix in ("part", "old"):
        (tmp_path / f"model.{suffix}").mkdir()
        (tmp_path / f"model.{suffix}" / "encoder.onnx").write_bytes(b"half")
    write(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_files_are_never_replaced(tmp_path: Path) -> None:
    write(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    (tmp_path / "file").write_text("mine")
    for name, reason in [
        ("model", "has files that are not of an exported model"),
        ("link", "is a link"),
        ("file", "is not a folder"),
    ]:
        with pytest.raises(ValueError, match=reason):
            check_replaceable(tmp_path / name)
    with pytest.raises(ValueError, match="name a new folder"):
        check_replaceable(Path("/"))
