"""``mla-export``: graphs equal the steps, shapes never change, and a folder is whole or not there."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from mla_fairseq.edge.build import SpeechSteps
from mla_fairseq.edge.drive import Call, decode, encoded, graph_call, read
from mla_fairseq.edge.export import export as export_step
from mla_fairseq.edge.runtime.names import NEW, NEXT
from mla_fairseq.edge.step import Step
from mla_fairseq.streaming.translator import Translator
from tests.edge.conftest import Steps
from tests.edge.test_steps import Make, speech
from tests.models.conftest import STREAMING
from tests.programs import Done, run
from tests.streaming.conftest import Save

Export = Callable[..., tuple[Path, Done]]
SOFTMAX = (
    "--encoder-left-chunks 3 --boundary-weight 1 --context-ratio 0.8 --criterion label_smoothed_cross_entropy_mla "
    "--share-decoder-input-output-embed"
)
FAST = ("softmax", "cosformer", "leap", "gla", "performer")
"""Mechanisms whose graphs are tested in every run: of each kind of state and of operation one."""
GRAPHS = ("frontend", "encoder", "reader", "decoder")


def graphs(steps: Steps, folder: Path) -> dict[str, Call]:
    """Write the graphs of steps, and return their calls."""
    parts: dict[str, Step] = {"encoder": steps.encoder, "reader": steps.reader, "decoder": steps.decoder}
    for name, step in parts.items():
        export_step(step, folder / f"{name}.onnx", {})
    return {name: graph_call(folder / f"{name}.onnx") for name in parts}


@pytest.mark.parametrize(
    "flags",
    [pytest.param(flags, id=name, marks=() if name in FAST else pytest.mark.slow) for name, flags in STREAMING.items()],
)
@torch.no_grad()
def test_graphs_equal_the_model(steps: Make, tmp_path: Path, flags: str) -> None:
    found, x = steps(flags, double=False), speech(61, torch.float)
    calls = graphs(found, tmp_path)
    states = found.model.encoder.stream(x.unsqueeze(0), {}, final=True)
    torch.testing.assert_close(encoded(found.encoder, x, calls["encoder"]), states[:, 0], rtol=0, atol=1e-4)
    state, memories, own, token = {}, found.reader.fresh, found.decoder.fresh, torch.tensor([2])
    for new in states.split(5):
        memories = read(found.reader, new[:, 0], memories, calls["reader"])
        scores, own = decode(found.decoder, token, memories, own, calls["decoder"])
        expected = found.model.decoder.step(token.unsqueeze(1), new, state)
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)
        token = expected.argmax(-1)


@pytest.fixture(params=["", "--int8"], ids=["float32", "int8"])
def folder(export: Export, request: pytest.FixtureRequest) -> Path:
    """The folder of a softmax model with a window and a boundary output."""
    folder, done = export(SOFTMAX, request.param)
    assert done.code == 0, done.err
    return folder


def test_the_folder_is_complete(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert {path.name for path in folder.iterdir()} == {"config.json", *config["files"]}
    for name, entry in config["files"].items():
        content = (folder / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert (config["format"], config["type"], config["chunk"], config["window"]) == (1, "speech-to-text", 4, 16)
    assert config["policy"] == {"type": "waitk", "lagging": [1, 3], "ratio": 3}
    assert config["boundary"] == {"back": 2, "ahead": 6}
    assert config["capacity"] == {"source": 752, "target": 321}
    assert config["languages"] == {"source": "en", "target": "de"}
    lines = (folder / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:4] == ["<s> 0", "<pad> 1", "</s> 2", "<unk> 3"]
    assert [line.rsplit(" ", 1)[1] for line in lines] == [str(i) for i in range(len(lines))]
    assert not list(folder.parent.glob("*.part")) + list(folder.parent.glob("*.old"))


def test_inputs_and_outputs_have_static_shapes(folder: Path) -> None:
    for path in folder.glob("*.onnx"):
        graph = onnx.load(path).graph
        shapes = {value.name: value.type.tensor_type for value in [*graph.input, *graph.output]}
        assert all(dim.HasField("dim_value") for kind in shapes.values() for dim in kind.shape.dim)
        assert all(shapes[name] == shapes[f"{NEXT}{name}"] for name in shapes if f"{NEXT}{name}" in shapes)


def test_with_linear_attention_all_values_have_static_shapes(export: Export) -> None:
    folder, done = export("--attn-type cosformer")
    assert done.code == 0, done.err
    for name in ("encoder", "reader", "decoder"):
        graph = onnx.shape_inference.infer_shapes(onnx.load(folder / f"{name}.onnx"), data_prop=True).graph
        assert len(graph.value_info) > len(graph.input)
        assert all(dim.HasField("dim_value") for value in graph.value_info for dim in value.type.tensor_type.shape.dim)


@pytest.mark.parametrize(("kernels", "frames"), [("5", 2), ("5,5", 4), ("5,5,5", 8)])
def test_rings_have_slots_for_the_longest_speech(
    translator: Callable[..., Translator], kernels: str, frames: int
) -> None:
    encoder = SpeechSteps(translator(f"--conv-kernel-sizes {kernels}"), 10.0).encoder
    slots = {tensor.shape[2] for name, tensor in encoder.fresh.items() if name.endswith(".key")}
    assert all(1000 / frames <= number <= 1000 / frames + 3 * encoder.chunk for number in slots) and slots


def test_of_keys_and_values_graphs_return_only_new_rows(folder: Path) -> None:
    """Copying whole rings at every call takes longer than a small model's products."""
    for part, new in (("encoder", 4), ("reader", 4), ("decoder", 1)):
        (path,) = folder.glob(f"{part}*.onnx")
        graph = onnx.load(path).graph
        rows = [value for value in graph.output if value.name.endswith((".key", ".value"))]
        assert rows and all(value.name.startswith(NEW) for value in rows)
        assert {value.type.tensor_type.shape.dim[2].dim_value for value in rows} == {new}
        assert not [node for node in graph.node if "Scatter" in node.op_type]


def test_the_encoder_has_metadata_as_icefall_writes_it(folder: Path) -> None:
    (path,) = folder.glob("encoder*.onnx")
    found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert (found["model_type"], found["decode_chunk_len"], found["T"]) == ("mla_simul", "16", "16")
    assert found["cross_attention"] == "SoftmaxAttention"


def test_8_bit_weights_are_stored_once(export: Export) -> None:
    """Also those of a tied embedding, and those of the convolutions."""
    folder, done = export(SOFTMAX, "--int8")
    assert done.code == 0, done.err
    assert {path.name for path in folder.glob("*.onnx")} == {"frontend.onnx"} | {f"{x}.int8.onnx" for x in GRAPHS[1:]}
    for path in folder.glob("*.int8.onnx"):
        weights = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
        assert not [w.shape for w in weights if w.ndim == 2 and w.dtype.kind == "f"]
        if path.name.startswith("decoder"):
            vocabulary = len((folder / "tokens.txt").read_text(encoding="utf-8").splitlines())
            assert sum(vocabulary in w.shape and w.ndim == 2 for w in weights) == 1


def test_products_of_8_bit_numbers_do_not_saturate(export: Export) -> None:
    """x86 without VNNI adds two of them in 16 bits; other processors would not show a graph that is wrong there."""
    folder, done = export(SOFTMAX, "--int8")
    assert done.code == 0, done.err
    for path in folder.glob("*.int8.onnx"):
        weights = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
        largest = max(int(abs(w.astype(int)).max()) for w in weights if w.dtype == "int8")
        assert largest > 32
        assert 2 * largest * 255 < 2**15


def refused(save: Save, data: Path, output: Path, *flags: object, model: Path | None = None) -> str:
    """Return the line that ``mla-export`` fails with."""
    done = run("mla-export", model or save(), "--data", data, "--output", output, *flags)
    assert done.code != 0
    return done.last_line


def test_an_older_export_is_replaced_and_nothing_else(save: Save, data: Path, export: Export, tmp_path: Path) -> None:
    output, foreign = tmp_path / "model", tmp_path / "foreign"
    for folder in (output, foreign):
        folder.mkdir()
        for path in export("--attn-type relu")[0].iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    done = run("mla-export", save("--attn-type relu"), "--data", data, "--output", output, "--int8")
    assert done.code == 0, done.err
    assert (output / "encoder.int8.onnx").exists() and not (output / "encoder.onnx").exists()
    (foreign / "notes.txt").write_text("mine")
    before = sorted(foreign.iterdir())
    assert "has files that are not of an exported model: name a new folder" in refused(save, data, foreign)
    assert sorted(foreign.iterdir()) == before


def test_mistakes_give_one_clear_error(save: Save, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    full_context = save("--encoder-chunk-size 0")
    assert "train a model with --encoder-chunk-size" in refused(save, data, output, model=full_context)
    assert "--longest is 0: give 1 to 3600 seconds" in refused(save, data, output, "--longest", 0)
    assert "no checkpoint" in refused(save, data, output, model=tmp_path / "none.pt")
    assert list(tmp_path.iterdir()) == []
