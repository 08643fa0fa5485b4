"""The ledger: a product is outdated if what it was made from has changed."""

from pathlib import Path

from mla_fairseq.data.ledger import Ledger, fingerprint


def test_parts_are_kept_apart() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint(1, "x") == fingerprint(1, "x") != fingerprint("1", "x")


def test_a_product_is_current_until_it_is_deleted_or_its_origin_changes(tmp_path: Path) -> None:
    product = tmp_path / "a.txt"
    product.touch()
    Ledger(tmp_path / "ledger.json").record(product, "origin")
    later = Ledger(tmp_path / "ledger.json")
    assert later.current(product, "origin")
    assert not later.current(product, "another")
    assert not later.current(tmp_path / "b.txt", "origin")
    product.unlink()
    assert not later.current(product, "origin")
