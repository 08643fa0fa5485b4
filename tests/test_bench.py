"""Benchmarks: their reports are complete, and a wrong mechanism is not timed."""

import importlib
import logging
import re
import runpy
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from mla_fairseq.attention import Causal, Layout, ReLUAttention, build_attention, registry

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
Report = Callable[..., str]


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Report:
    """``report(script, *arguments)``: the text that a script writes to its ``--output``."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def report(script: str, *arguments: str) -> str:
        output = tmp_path / "report.md"
        monkeypatch.setattr(sys, "argv", [str(SCRIPTS / script), *arguments, "--allow-dirty", "--output", str(output)])
        threads, disabled = torch.get_num_threads(), logging.root.manager.disable
        try:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
            logging.disable(disabled)  # other tests read what programs log
        return output.read_text(encoding="utf-8")

    return report


def rows(text: str, title: str) -> list[list[str]]:
    """Return the cells of the table under a title, without its head."""
    lines = text[text.index(title) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| ---"))
    table = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


SMALL = ("--lengths", "128", "256", "--repeats", "1", "--turn", "0", "--steps", "3", "50", "--heads", "2")


def test_attention_is_timed_measured_and_signed(report: Report) -> None:
    text = report("bench_attention.py", "--attn-types", "relu", "gla", *SMALL)
    for view, names in (("Causal", ["plain", "relu", "gla"]), ("Full", ["plain", "relu"])):  # a gate goes in order
        for what in ("forward and backward", "forward"):
            table = rows(text, f"### {view}, {what}: times as fast")
            assert [row[0] for row in table] == ["SDPA, ms", *names]
            assert all(len(row) == 3 and float(row[1]) >= 0 <= float(row[2]) for row in table)  # 0.00 if starved
            assert min(map(float, table[0][1:])) > 0
    assert all(float(cell) > 0 for row in rows(text, "MB held at the peak") for cell in row[1:])
    steps = {row[0]: row[1:] for row in rows(text, "One decoding step")}
    assert list(steps) == ["softmax", "relu", "gla", "plain"] and float(steps["plain"][2]) == 1
    assert int(steps["softmax"][4]) > int(steps["softmax"][3])
    assert steps["relu"][3] == steps["relu"][4]
    assert re.search(r"`python scripts/bench_attention.py .*`; commit [0-9a-f]+\+?; torch [\d.]+", text)


def test_a_reference_that_cannot_be_installed_is_reported(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    text = report("bench_attention.py", "--attn-types", "relu", *SMALL, "--references", "fast-transformers")
    assert "Not compared: pip could not install pytorch-fast-transformers==0.4.0: " in text
    assert [row[0] for row in rows(text, "One decoding step")] == ["softmax", "relu", "plain"]


class Wrong(ReLUAttention):
    """A mechanism whose parallel form differs from its quadratic form."""

    def parallel(self, *args, **kwargs) -> torch.Tensor:
        return super().parallel(*args, **kwargs) * 1.01


def test_a_mechanism_that_differs_from_the_oracle_is_not_timed(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._ENTRIES, "relu", registry.Entry("relu", Wrong, None))
    with pytest.raises(SystemExit, match="error: relu, causal, 128 positions: differs from the oracle by"):
        report("bench_attention.py", "--attn-types", "relu", *SMALL)


def test_the_plain_step_is_relu_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    step = runpy.run_path(str(SCRIPTS / "bench_references.py"))["plain_step"]
    q, k, v = torch.randn(3, 2, 2, 5, 4).unbind()
    state, outputs = torch.zeros(2, 2, 4, 5), []
    for t in range(5):
        output, state = step(state, *(x[:, :, t : t + 1] for x in (q, k, v)))
        outputs.append(output)
    expected = build_attention("relu", 4).parallel(q, k, v, Layout.whole(Causal(), 5))
    assert torch.allclose(torch.cat(outputs, dim=2), expected, atol=1e-5)


def test_training_is_timed_beside_stock_fairseq_and_the_bound(report: Report) -> None:
    text = report(
        "bench_training.py", "--size", "xs", "--attn-types", "relu", "--seconds", "0", "2", "--max-tokens", "600",
        "--batches", "1", "--long-batches", "1", "--vocabulary", "50", "--turns", "2", "--threads", "1",
        "--tokens", "3", "--model-flags", "--encoder-layers 2 --decoder-layers 2 --conv-channels 64",
    )  # fmt: skip
    speeds = rows(text, "speed of training, softmax everywhere")
    assert [row[0] for row in speeds] == ["like MuST-C", "2 s"]
    for _, words, *ratios in speeds:
        assert float(words) > 0 and len(ratios) == 4
        for middle, least, greatest in (re.fullmatch(r"(\S+) \((\S+)-(\S+)\)", ratio).groups() for ratio in ratios):
            assert 0 < float(least) <= float(middle) <= float(greatest)
    assert all(0 < float(share) < 1 for row in rows(text, "share of the matrix product's peak") for share in row[1:])
    assert all(float(cell) > 1 for row in rows(text, "### Memory") for cell in row[1:])
    assert all(len(row) == 4 for row in rows(text, "### Decoding"))
    assert re.search(r"`python scripts/bench_training.py .*`; commit [0-9a-f]+\+?; torch [\d.]+", text)


def test_conformers_are_timed_beside_transformers(report: Report) -> None:
    small = ("--max-tokens", "300", "--batches", "1", "--vocabulary", "50", "--turns", "2", "--attn-types", "relu")
    text = report("bench_conformer.py", *small)
    transformer, conformer = rows(text, "# Training with Conformer")
    assert (transformer[0], conformer[0]) == ("Transformer, relu", "Conformer, relu")
    assert transformer[3] == "1.00 (1.00-1.00)" and min(float(row[2]) for row in (transformer, conformer)) > 0
    assert float(conformer[3].split()[0]) > 0.5


def test_batches_represent_all_utterances(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle batches of equal parts have the mean length of all batches within a few percent."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = runpy.run_path(str(SCRIPTS / "bench_batches.py"))
    torch.manual_seed(1)
    lengths = script["draw_lengths"](0)
    assert 5 < lengths.double().mean() / 100 < 7
    drawn, every = (script["draw_batches"](lengths, 6000, number) for number in (8, 1000))
    frames = [torch.cat(batches).double().mean() / 100 for batches in (drawn, every)]
    assert abs(frames[0] - frames[1]) < 0.1 * frames[1]
    assert all(int(batch.max()) * len(batch) <= 6000 for batch in drawn)


def test_the_bound_trains_every_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))  # the bound registers itself, here alone
    free = runpy.run_path(str(SCRIPTS / "bench_bound.py"))["ReturnValues"].apply
    q, k, v = (torch.randn(2, 2, t, 4, requires_grad=True) for t in (3, 5, 5))
    output = free(q, k, v)
    assert torch.equal(output, v[:, :, :3])
    assert all(
        g.shape == x.shape and g.abs().sum() > 0
        for g, x in zip(torch.autograd.grad(output.square().sum(), (q, k, v)), (q, k, v), strict=True)
    )


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """``benchmark.py`` over a small repository with one commit."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    shared = importlib.import_module("benchmark")
    root = tmp_path / "repository"
    (root / "docs").mkdir(parents=True)
    (root / "a.py").write_text("1\n")
    git(root, "init")
    git(root, "add", "-A")
    git(root, "commit", "-m", "one")
    monkeypatch.setattr(shared, "ROOT", root)
    return shared


def test_uncommitted_files_are_not_measured(shared: ModuleType) -> None:
    docs = shared.ROOT / "docs" / "bench.md"
    shared.check_tree(Namespace(allow_dirty=False, output=docs))
    (shared.ROOT / "a.py").write_text("2\n")
    with pytest.raises(
        SystemExit, match=r"files differ from the commit \([0-9a-f]+\+\): commit them, or pass --allow-d"
    ):
        shared.check_tree(Namespace(allow_dirty=False, output=None))
    shared.check_tree(Namespace(allow_dirty=True, output=shared.ROOT / "mine.md"))
    with pytest.raises(SystemExit, match=r"is in docs/, but files differ"):
        shared.check_tree(Namespace(allow_dirty=True, output=docs))


def test_a_baseline_is_the_tree_of_its_revision_and_is_removed(shared: ModuleType) -> None:
    (shared.ROOT / "a.py").write_text("2\n")
    with shared.source_tree("HEAD") as tree:
        assert (tree / "a.py").read_text() == "1\n"
    assert not tree.exists()
    assert shared._git("worktree", "list").stdout.count("\n") == 1
    with (
        pytest.raises(SystemExit, match="error: --baseline nothing cannot be checked out"),
        shared.source_tree("nothing"),
    ):
        pass


STREAMED = ("--arch", "s2t_transformer_simul_mla_tiny", "--minutes", "0.2", "--vocabulary", "50", "--threads", "1")


def test_streaming_is_timed_beside_encoding_all_audio_again(report: Report, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(-3000, 3000, 5 * 16_000, dtype=np.int16)
    soundfile.write(tmp_path / "noise.wav", noise, 16_000)
    text = report(
        "bench_streaming.py",
        "--wavs",
        str(tmp_path),
        *STREAMED,
        "--long-minutes",
        "0.1",
        "--again-minutes",
        "0.1",
        "--again-every",
        "3",
    )
    policies = {row[0]: [float(cell) for cell in row[1:]] for row in rows(text, "### What a segment costs")}
    assert len(policies) == 6 and all(len(costs) == 4 and min(costs) > 0 for costs in policies.values())
    ((minute, *ways, _),) = rows(text, "## Streaming")
    assert minute == "1"
    assert len(ways) == 3
    assert all(float(number) > 0 for way in ways for number in way.split(" / "))
    hour = rows(text, "### A recording of 0.1 minutes with pauses")
    assert [row[0] for row in hour] == ["1"]
    assert all(len(cell.split(" / ")) == 3 and float(cell.split(" / ")[1]) > 0 for cell in hour[0][1:])
    for name in ("long session", "agent"):
        found = re.search(
            rf"\* {name}: the last minute costs (\S+) times .*; 1\.000 times the state .*1\.000 times", text
        )
        assert 0 < float(found[1]) < 10
    for name in ("relu everywhere", "cosformer everywhere", "softmax, window"):
        assert re.search(rf"\* {name}: .* real-time factor 0\.\d+; encoding all audio again costs \d+ times", text)


def test_streaming_without_a_recording_is_reported_in_one_line(report: Report, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: no wav under .*: give a folder of 16 kHz recordings, or .*make demo"):
        report("bench_streaming.py", "--wavs", str(tmp_path), *STREAMED)


def test_synthesis_is_timed_measured_and_signed(report: Report) -> None:
    flags = ("--arch", "tts_transformer_mla_tiny", "--lengths", "4", "40", "--batches", "2", "--repeats", "1")
    text = report("bench_tts.py", *flags, "--steps", "1", "--threads", "1")
    for title, columns in (("milliseconds of a step", 6), ("a whole utterance", 5), ("megabytes carried", 6)):
        table = rows(text, title)
        assert [row[0] for row in table] == ["4", "40"]
        assert all(len(row) == columns and min(map(float, row[1:])) > 0 for row in table)
    carried = rows(text, "megabytes carried")
    assert float(carried[1][1]) > float(carried[0][1])
    assert carried[0][2:4] == carried[1][2:4]
    assert "`python scripts/bench_tts.py" in text


def test_the_length_from_which_a_mix_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = runpy.run_path(str(SCRIPTS / "bench_tts.py"))
    lengths = [1, 100]
    assert script["whole"](lengths, [1.0, 100.0], 100) == pytest.approx(5050)
    assert script["crossing"](lengths, [1.0, 100.0], [50.5, 50.5]) is None
    assert script["crossing"](lengths, [1.0, 100.0], [10.0, 10.0]) == 20
    assert script["crossing"](lengths, [2.0, 2.0], [1.0, 1.0]) == 1
