"""Whole files or none, and the ledger of what they were made from."""

from pathlib import Path

import pytest

from mla_fairseq.data.files import Ledger, fingerprint, write_text


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
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


def test_parts_are_kept_apart() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(1, "x") == fingerprint(1, "x") != fingerprint("1", "x")


def test_a_product_is_current_until_it_goes_or_its_origin_changes(tmp_path: Path) -> None:
    product = tmp_path / "a.txt"
    product.touch()
    Ledger(tmp_path / "ledger.json").record(product, "origin")
    later = Ledger(tmp_path / "ledger.json")
    assert later.current(product, "origin")
    assert not later.current(product, "another")
    assert not later.current(tmp_path / "b.txt", "origin")
    product.unlink()
    assert not later.current(product, "origin")
