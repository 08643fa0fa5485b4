"""Small recipes for tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mla_fairseq.recipes import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
SMALL = f"""
base: {ROOT}/configs/tiny.yaml
prepare: {{pairs: en-de, vocab_size: 50}}
"""
SHORTEST = """
train: {data: DATA, config_yaml: config.yaml, task: speech_to_text_mla, arch: s2t_transformer_mla_tiny, optimizer: adam,
        lr: 0.01, criterion: label_smoothed_cross_entropy, batch_size: 4, max_update: 2}
generate: {max_tokens: 1000}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe into the test's folder; by default the small one."""

    def write_file(text: str = SMALL, name: str = "small.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


@pytest.fixture
def shortest(tmp_path: Path) -> str:
    """Return a recipe with only the flags that fairseq requires, for data in the test's folder."""
    return SHORTEST.replace("DATA", str(tmp_path))


@pytest.fixture
def small(write: Callable[..., Path], tmp_path: Path) -> Callable[..., Recipe]:
    """Load the small recipe with flags changed, or another one of the same folder."""

    def load(*overrides: str, data: str = str(tmp_path / "corpora"), **options) -> Recipe:
        return load_recipe(write(), tmp_path / "runs", overrides, "small", data, **options)

    return load
