"""The small model of the streaming tests, served."""

from collections.abc import Callable

import pytest

from mla_fairseq.live.model import Model
from mla_fairseq.streaming import Translator
from tests.streaming.conftest import data, joint, multilingual, save, translator  # noqa: F401 -- fixtures


@pytest.fixture(scope="session")
def model(translator: Callable[..., Translator]) -> Model:  # noqa: F811
    """A wait-k model for k from 1 to 3."""
    return Model(translator("--attn-type relu"), "folder/small", "en", "de")
