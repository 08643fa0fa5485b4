"""Recipes small enough for tests."""

from pathlib import Path

import pytest

from mla_fairseq.recipes.commands import Paths
from mla_fairseq.recipes.loader import load_recipe

SMALL = """
data: {corpus: tiny, root: "${DATA}", pair: en-de, vocab_size: 50}
train: {max_update: 10, keep_interval_updates: 5}
"""


@pytest.fixture
def small() -> str:
    """The shortest recipe that says all that is required."""
    return SMALL


@pytest.fixture
def write(tmp_path: Path):
    """Writes a YAML file into the test's folder; returns its path."""

    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def small_paths(write, tmp_path: Path):
    """Paths of a small recipe, keys changed as asked."""

    def make(*overrides: str) -> Paths:
        variables = {"DATA": str(tmp_path / "data"), "RUNS": str(tmp_path / "runs")}
        return Paths(load_recipe(write("small.yaml", SMALL), variables, overrides), tmp_path / "runs")

    return make
