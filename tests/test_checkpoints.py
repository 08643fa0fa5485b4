"""A checkpoint is data: code in a file is refused, never run."""

import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from mla_fairseq.checkpoints import check_symbols, load_checkpoint, load_training
from mla_fairseq.tasks.resuming import choose_checkpoint


class Evil:
    """Run a command when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_loading_never_runs_code(tmp_path):
    torch.save({"model": {}, "extra": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt is not a fairseq checkpoint, or is broken"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "check the path", id="missing"),
        pytest.param(b"PK not a zip", "is broken", id="broken"),
        pytest.param({"weights": {}}, "is not a fairseq checkpoint", id="foreign"),
        pytest.param(torch.ones(2), "is not a fairseq checkpoint", id="tensor"),
    ],
)
def test_a_bad_file_is_reported(tmp_path, content, words):
    path = tmp_path / "a.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"a\.pt.*{words}"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"task_state": [1]}, "task_state"),
        ({"task_state": {"symbols": 3}}, "symbols"),
        ({"task_state": {"symbols": [3]}}, "symbols"),
        ({"extra_state": [1]}, "extra_state"),
        ({"optimizer_history": {"num_updates": 7}}, "optimizer_history"),
        ({"optimizer_history": [7]}, "optimizer_history"),
        ({"optimizer_history": [{"num_updates": "7"}]}, "optimizer_history"),
        ({"last_optimizer_state": 7}, "last_optimizer_state"),
        ({"cfg": [1]}, "cfg"),
        ({"args": {"arch": "a"}}, "args"),
    ],
    ids=str,
)
def test_a_section_of_another_type_is_broken(tmp_path, caplog, section, words):
    whole = {"model": {}, "optimizer_history": [{"num_updates": 3}]}
    torch.save(whole | section, tmp_path / "checkpoint_last.pt")
    torch.save(whole, tmp_path / "checkpoint_1_3.pt")
    with pytest.raises(ValueError, match=rf"checkpoint_last\.pt has {words} .*: give a checkpoint that fairseq-train"):
        load_checkpoint(tmp_path / "checkpoint_last.pt")
    choose_checkpoint(Namespace(save_dir=str(tmp_path), restore_file="checkpoint_last.pt"))
    assert "checkpoint_last.pt is broken: resuming from" in caplog.text
    assert load_checkpoint(tmp_path / "checkpoint_last.pt") == whole


@pytest.mark.parametrize("more", [{}, {"cfg": None, "args": None}, {"cfg": {"model": {"_name": "a"}}}], ids=str)
def test_weights_without_options_are_refused(tmp_path, more):
    torch.save({"model": {"weight": torch.ones(1)}, **more}, tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt has weights without fairseq's options"):
        load_training(tmp_path / "a.pt")


def test_a_training_has_its_architecture(tmp_path):
    whole = {"model": {}, "cfg": {"model": Namespace(_name="some_arch")}, "optimizer_history": []}
    torch.save(whole, tmp_path / "a.pt")
    assert load_training(tmp_path / "a.pt")[1] == "some_arch"
    torch.save({"model": {}, "args": Namespace(arch="old_arch"), "best_loss": 1.0}, tmp_path / "a.pt")
    assert load_training(tmp_path / "a.pt")[1] == "old_arch"


def test_a_weight_without_its_data_is_refused(tmp_path):
    """A view of one number can have any shape, so shapes would not limit what is built from them."""
    torch.save({"model": {"weight": torch.ones(1).expand(1 << 20, 1 << 20)}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt has a weight without its data \(weight, shape \(1048576, 1048576\)\)"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save({"model": {"weight": 3}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt has a weight that is not a tensor \(weight\)"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, 3, device="meta"),
        torch.ones(2, 3).to_sparse(),
        torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8),
    ],
    ids=["meta", "sparse", "quantized"],
)
def test_a_weight_of_another_layout_is_refused(tmp_path, tensor):
    torch.save({"model": {"weight": tensor}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt (has a weight without its data \(weight|is not a fairseq checkpoint)"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_file_with_two_sets_of_options_has_those_that_fairseq_reads(tmp_path):
    both = {"args": Namespace(arch="read"), "cfg": {"model": Namespace(_name="not_read")}, "best_loss": 1.0}
    torch.save({"model": {}, **both}, tmp_path / "a.pt")
    state, name = load_training(tmp_path / "a.pt")
    assert name == "read" and state["cfg"] is None


def test_the_name_is_that_by_which_fairseq_chooses(tmp_path):
    torch.save({"model": {}, "args": Namespace(_name="a", arch="b"), "best_loss": 1.0}, tmp_path / "a.pt")
    assert load_training(tmp_path / "a.pt")[1] == "b"
    torch.save({"model": {}, "cfg": {"model": Namespace(_name="a", arch="b")}, "best_loss": 1.0}, tmp_path / "a.pt")
    assert load_training(tmp_path / "a.pt")[1] == "a"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, number):
    torch.save({"model": {"a": torch.ones(2), "b.weight": torch.tensor([1, number])}}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt has NaN or infinite numbers in 'b\.weight': use an earlier"):
        load_checkpoint(tmp_path / "a.pt")
    # fairseq's versions until 2020 saved a number that was never set
    torch.save({"model": {"embed_positions._float_tensor": torch.tensor([number])}}, tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("saved", "difference"),
    [
        pytest.param(["<s>", "b", "a"], "symbol 1 is 'b' there and 'a' here", id="another order"),
        pytest.param(["<s>", "a", "c"], "symbol 2 is 'c' there and 'b' here", id="other symbols"),
        pytest.param(["<s>", "a"], "2 there, 3 here", id="fewer symbols"),
    ],
)
def test_other_symbols_are_refused(saved, difference):
    with pytest.raises(ValueError, match=rf"^a\.pt was trained with other symbols than those of data \({difference}\)"):
        check_symbols("a.pt", {"task_state": {"symbols": saved}}, ["<s>", "a", "b"], "data")


@pytest.mark.parametrize("state", [{}, {"task_state": {}}, {"task_state": {"symbols": ["a", "b"]}}], ids=str)
def test_checkpoints_without_symbols_are_accepted(state):
    check_symbols("a.pt", state, ["a", "b"], "data")
