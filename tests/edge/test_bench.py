"""The benchmarks of exported models: what they count, and that their reports are complete."""

import re
import runpy
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mla_fairseq.data.prepare_speech import Options, prepare
from tests.data.voice import write_voice
from tests.edge.voice import save_voice
from tests.streaming.conftest import Save
from tests.test_bench import SCRIPTS, Report, report, rows  # noqa: F401 -- a fixture

BASELINE = "fe7b653"
Scripts = Callable[[str], dict[str, Any]]
TURN = {"words": [["ja", ""], ["", "nein"]], "segment": 4.0, "factor": 0.02, "start": 9.0, "memory": 400.0, "calls": {}}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Scripts:
    """``scripts(name)``: what a script defines."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return lambda name: runpy.run_path(str(SCRIPTS / f"{name}.py"))


def write_products(folder: Path) -> None:
    """Write a decoder's graph: a row of a table, a product with a weight, and one with the keys that a ring has."""
    sizes = {"x": [2, 4], "k": [8, 4], "n": [1], "next.x": [2, 4], "y": [2, 1], "new.k": [1, 4]}
    kinds = {"n": TensorProto.INT64}
    values = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), size) for name, size in sizes.items()
    ]
    arrays = {
        "w": np.zeros((4, 4), np.float32),
        "t": np.zeros((9, 4), np.float32),
        "i": np.array([1]),
        "o": np.array([0]),
    }
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    nodes = [("Gather", "ti", "r"), ("Transpose", "w", "v"), ("MatMul", "xv", "h"), ("Add", "hr", "next.x")]
    nodes += [("Add", "ni", "e"), ("Slice", "koe", "f"), ("MatMul", "fv", "g"), ("Identity", "g", "new.k")]
    nodes += [("Transpose", "g", "u"), ("MatMul", "hu", "y")]
    made = [helper.make_node(kind, list(given), [found]) for kind, given, found in nodes]
    graph = helper.make_graph(made, "decoder", values[:3], values[3:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "decoder.onnx")


def test_products_and_bytes_of_a_graph_are_counted(scripts: Scripts, tmp_path: Path) -> None:
    write_products(tmp_path)
    cost = scripts("edge_limit")["segment_cost"]({"decoder": 3.0}, tmp_path, tmp_path)
    assert cost.flop == 3 * 2 * (2 * 4 * 4 + 1 * 4 * 4)  # one slot of the ring is filled
    assert cost.others == 3 * 2 * (2 * 1 * 4)
    assert cost.weights == 3 * (4 * 4 * 4 + 2 * 8)  # the table is not read as a whole
    assert cost.states == 3 * (4 * (8 + 8 + 2 + 4) + 8)  # of the ring, the new row


def test_the_limit_is_the_longer_of_products_and_bytes(scripts: Scripts) -> None:
    limit = scripts("edge_limit")
    peaks = limit["Peaks"](100.0, 200.0, 30.0) | limit["Peaks"](90.0, 400.0, 40.0)
    assert peaks == limit["Peaks"](100.0, 400.0, 40.0)
    cost = limit["Cost"](flop=800.0, others=100.0, weights=100.0, states=20.0)
    assert peaks.limit(cost, "float32") == 9.0
    assert peaks.limit(cost, "int8") == 3.0
    assert peaks.limit(limit["Cost"](flop=8.0, weights=100.0, states=20.0), "int8") == 3.0


def test_peaks_are_measured(scripts: Scripts) -> None:
    peaks = scripts("edge_limit")["measure_peaks"]()
    assert all(1e8 < rate < 1e13 for rate in vars(peaks).values())


def test_exported_models_are_compared_turn_by_turn(scripts: Scripts, tmp_path: Path) -> None:
    write_products(tmp_path)
    (tmp_path / "a.bin").write_bytes(bytes(2_000_000))
    own = TURN | {"segment": 1.0, "words": [["ja", ""], ["nein", ""]], "calls": {"decoder": 2.0}}
    turns = {"PyTorch": [TURN, TURN], "float32": [own, TURN], "int8": [own, own | {"segment": 2.0}]}
    programs = dict.fromkeys(turns, tmp_path)
    bench = scripts("bench_edge")
    model = bench["Model"]("small", tmp_path, [], programs, turns=turns)
    peaks = bench["edge_limit"].Peaks(1e9, 1e6, 1e9)
    table = rows(model.report(peaks), "## small")
    assert table[0][:5] == ["PyTorch", "4.00 (4.00-4.00)", "1.00 (1.00-1.00)", "0.0200", ""]
    assert table[2][:5] == ["int8", "1.50 (1.00-2.00)", "3.00 (2.00-4.00)", "0.0200", "13%"]  # 192 FLOP and 32 others
    assert table[2][-2:] == ["2.00", "1 of 2"]  # words of another segment are not equal


def test_exported_models_without_a_corpus_are_reported(
    report: Report,  # noqa: F811
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit, match=r"error: .* has no corpus of the pair .*: arrange it as"):
        report("bench_edge.py", "--model", "checkpoint.pt", str(tmp_path), str(tmp_path))


SMALL_RANDOM = (
    "s2t_transformer_simul_mla_tiny --attn-type relu --encoder-layers 1 --decoder-layers 1 --conv-channels 16 "
    "--fixed-pre-decision-ratio 2"
)


@pytest.mark.slow
def test_exported_models_are_timed_beside_their_session(
    report: Report,  # noqa: F811
    save: Save,
    data: Path,
    tmp_path: Path,
) -> None:
    if subprocess.run(["git", "cat-file", "-e", f"{BASELINE}^{{commit}}"], cwd=SCRIPTS, check=False).returncode:
        pytest.skip(f"this clone has no commit {BASELINE}: fetch the whole history")
    voice = prepare(write_voice(tmp_path / "voice"), tmp_path / "data", Options(dev=2, test=3)).parent
    model, speaker = str(save("--waitk-lagging 1-3")), str(save_voice(voice, tmp_path / "voice.pt"))
    flags = ["--model", model, str(data), str(data), "--random", SMALL_RANDOM, "--voice", speaker, str(voice)]
    flags += ["--lagging", "2", "--turns", "1", "--number", "3", "--baseline", BASELINE]
    text = report("bench_edge.py", *flags)
    for title, sentences in ((model, 3), (SMALL_RANDOM, 1)):
        table = rows(text, f"## {title}")
        assert [line[0] for line in table] == [BASELINE, "PyTorch", "float32", "int8"]
        assert all(float(cell.split()[0]) > 0 for line in table for cell in (*line[1:4], *line[5:8]))
        assert all(re.fullmatch(r"\d+%", line[4]) for line in table[2:])
        assert [line[-1] for line in table[:3]] == [f"{sentences} of {sentences}"] * 3
        assert float(table[2][6]) < 200 < float(table[1][6])  # MB: without torch, and with it
    assert len(re.findall(r"A segment in \w+: [\d.]+ tokens, .* at least [\d.]+ ms\.", text)) == 4
    table = rows(text, f"## {speaker}, text to speech")
    assert [line[0] for line in table] == ["PyTorch", "float32", "int8"]
    assert all(float(cell) > 0 for line in table for cell in line[1:])
    assert "`python scripts/bench_edge.py" in text


def test_words_that_only_one_program_emits_are_not_equal(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = scripts("edge_hour")["compare"]
    torch = {"words": [["ja", 1], ["so", 2], ["so", 3]], "segment": 1.0, "memory": 2.0}
    graphs = torch | {"words": [["ja", 1], ["ja", 1], ["so", 2], ["so", 4], ["nein", 5]]}
    monkeypatch.setitem(compare.__globals__, "minutes", lambda *_: iter([(torch, torch), (torch, graphs)]))
    first, second = compare(Namespace(minutes=2))
    assert (first[5:], second[5:]) == (["3", "3", "3"], ["6", "8", "5"])


@pytest.mark.slow
def test_a_long_stream_is_compared_by_the_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], save: Save, data: Path
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    flags = [str(save("--waitk-lagging 1-3")), str(data), str(data), "--minutes", "2", "--lagging", "2"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / "edge_hour.py"), *flags])
    runpy.run_path(sys.argv[0], run_name="__main__")
    table = rows(capsys.readouterr().out, "| minutes")
    assert [line[0] for line in table] == ["1", "2"]
    assert all(float(cell) > 0 for line in table for cell in line[1:5])
    assert float(table[1][4]) < 200 < float(table[1][3])  # MB: without torch, and with it
    assert all(line[5] == line[6] == line[7] for line in table)
    assert 0 < int(table[0][5]) < int(table[1][5])
