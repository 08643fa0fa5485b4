"""A Conformer encoder as steps with static shapes, as graphs, and exported: it emits the words of a session."""

from pathlib import Path

import onnx
import pytest
import torch

from mla_fairseq.edge.drive import boundaries, checked, encoded
from mla_fairseq.edge.encoder import EncoderStep
from mla_fairseq.edge.quantise import quantise
from mla_fairseq.edge.runtime.model import EdgeTranslator
from mla_fairseq.streaming import IncrementalSession, SearchOptions, Translator, WaitKPolicy
from tests.edge.conftest import SIMUL, Steps
from tests.edge.test_export import graphs
from tests.edge.test_runtime import emissions
from tests.edge.test_steps import Make, check_steps, speech, streamed
from tests.models.conftest import FEATURES, Build
from tests.models.test_s2t_transformer_mla import shake
from tests.programs import run
from tests.streaming.conftest import Save, noise

ARCH = "s2t_conformer_simul_mla"
KERNEL = "--depthwise-conv-kernel-size 5"
OPTIONS = {
    "softmax": KERNEL,
    "cosformer": f"{KERNEL} --attn-type cosformer",
    "gla": f"{KERNEL} --encoder-attn-type gla --decoder-attn-type gla",
    "fairseq's": f"{KERNEL} --conformer-block-norm --conformer-conv-norm batch --encoder-left-chunks 2",
    "kernel-above-chunk": "--depthwise-conv-kernel-size 15",
    "kernel-of-one": "--depthwise-conv-kernel-size 1",
}


@pytest.mark.parametrize("flags", OPTIONS.values(), ids=OPTIONS)
def test_steps_equal_the_model(steps: Make, flags: str) -> None:
    found = steps(flags, ARCH)
    shake(found.model)
    check_steps(Steps(found.model), (1, 3, 16, 61, 190))


@torch.no_grad()
def test_the_boundary_output_is_that_of_a_stream(build: Build) -> None:
    model = build(ARCH, f"{SIMUL} {KERNEL} --boundary-weight 1").model.double().eval()
    step = EncoderStep(model.encoder, FEATURES, 60)
    for frames in (1, 19, 90):
        found = boundaries(step, speech(frames), checked(step))
        expected = model.encoder.boundary(streamed(model, speech(frames)))
        torch.testing.assert_close(found, expected[:, 0], rtol=0, atol=1e-9)


@torch.no_grad()
def test_graphs_equal_the_model(steps: Make, tmp_path: Path) -> None:
    found, x = steps(KERNEL, ARCH, double=False), speech(61, torch.float)
    expected = streamed(found.model, x)[:, 0]
    calls = graphs(found, tmp_path)
    torch.testing.assert_close(encoded(found.encoder, x, calls["encoder"]), expected, rtol=0, atol=1e-4)
    quantise(tmp_path / "encoder.onnx", tmp_path / "int8.onnx")
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    weights = {tensor.name for tensor in graph.initializer}
    assert not [node for node in graph.node if node.op_type in ("MatMul", "Gemm") and weights & set(node.input)]


def test_relative_positions_are_refused(build: Build) -> None:
    with pytest.raises(ValueError, match="--pos-enc-type rel_pos cannot be exported"):
        EncoderStep(build(ARCH, f"{SIMUL} --pos-enc-type rel_pos").model.encoder, FEATURES, 60)


def test_an_exported_conformer_emits_the_words_of_its_session(save: Save, data: Path, tmp_path: Path) -> None:
    checkpoint = save(f"{KERNEL} --attn-type relu", ARCH)
    done = run("mla-export", checkpoint, "--data", data, "--output", tmp_path / "model")
    assert done.code == 0, done.err
    found = []
    for model in (EdgeTranslator.load(tmp_path / "model"), Translator.load(checkpoint, data)):
        session = IncrementalSession(model, WaitKPolicy(1), SearchOptions(max_len_b=8))
        found.append(emissions(session, noise(2.26, 3), 4_480))
    assert found[0] == found[1] and len(found[0]) > 1
