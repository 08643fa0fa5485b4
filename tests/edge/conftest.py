"""Models of other tests, their steps, and exported folders of them."""

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.build import cross_site
from mla_fairseq.edge.decoder import DecoderStep
from mla_fairseq.edge.encoder import EncoderStep
from mla_fairseq.edge.reader import ReaderStep
from tests.models.conftest import FEATURES, Build, build, corpus  # noqa: F401 -- fixtures
from tests.programs import Done, run
from tests.streaming.conftest import Save, data, save, translator  # noqa: F401 -- fixtures

CAPACITY = 60
SIMUL = (
    "--fixed-pre-decision-ratio 2 --encoder-chunk-size 4 --waitk-lagging 1-3 "
    "--target-length-fixed 11 --source-length 9"  # shorter than what follows: beyond them as well
)
ARCHS = ("s2t_transformer_simul_mla", "convtransformer_simul_mla")


class Steps:
    """A model in float64 and its steps."""

    def __init__(self, model: object, beam: int = 1, capacity: int = CAPACITY) -> None:
        self.model, layers = model, model.decoder.layers
        self.encoder = EncoderStep(model.encoder, FEATURES, capacity)
        sites = [cross_site(layer.encoder_attn, capacity, self.encoder.chunk) for layer in layers]
        self.reader = ReaderStep(model.decoder, sites, self.encoder.chunk, self.encoder.channels)
        self.decoder = DecoderStep(model.decoder, sites, self.reader.fresh, capacity, beam)

    @property
    def fresh(self) -> Tensors:
        return self.encoder.fresh | self.reader.fresh | self.decoder.fresh


@pytest.fixture(scope="session")
def steps(build: Build) -> Callable[..., Steps]:  # noqa: F811
    """``steps(flags, arch, beam=1)``: the steps of a model with random weights."""

    @functools.cache
    def steps(flags: str = "", arch: str = ARCHS[0], beam: int = 1, double: bool = True) -> Steps:
        model = build(arch, f"{SIMUL} {flags}").model.eval()
        return Steps(model.double() if double else model, beam)

    return steps


@pytest.fixture(scope="session")
def export(save: Save, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Done]]:  # noqa: F811
    """``export(model_flags, flags)``: the folder that ``mla-export`` writes, and what it prints."""

    @functools.cache
    def export(model: str = "", flags: str = "") -> tuple[Path, Done]:
        folder = tmp_path_factory.mktemp("export") / "model"
        return folder, run("mla-export", save(model), "--data", data, "--output", folder, *flags.split())

    return export
