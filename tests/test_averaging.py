"""The mean of checkpoints: exact, safe to load, and never half written."""

import argparse
import re
from pathlib import Path

import pytest
import torch
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from hypothesis import given
from hypothesis import strategies as st

from mla_fairseq.averaging import _DEFINING, average_checkpoints, last_checkpoints, load_checkpoint, save_checkpoint
from mla_fairseq.cli.average import main
from mla_fairseq.models.options import add_attention_args
from mla_fairseq.models.registration import register
from mla_fairseq.models.stock import OURS

register()


def checkpoint(path: Path, updates: int = 0, **weights) -> Path:
    """Write a checkpoint as fairseq does, with a ``Namespace`` in it."""
    state = {
        "args": None,
        "cfg": {"model": argparse.Namespace(arch="x")},
        "model": {name: torch.as_tensor(weight) for name, weight in weights.items()},
        "optimizer_history": [{"num_updates": updates}],
        "last_optimizer_state": {"state": torch.ones(3)},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


NUMBERS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3)


@given(columns=st.lists(NUMBERS, min_size=1, max_size=5), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_the_mean_is_computed_in_float64(tmp_path_factory, columns, dtype):
    folder = tmp_path_factory.mktemp("checkpoints")
    weights = [torch.tensor(column, dtype=dtype) for column in columns]
    paths = [checkpoint(folder / f"{index}.pt", w=weight) for index, weight in enumerate(weights)]
    mean = average_checkpoints(paths)["model"]["w"]
    assert mean.dtype == dtype
    torch.testing.assert_close(mean, torch.stack(weights).double().mean(0).to(dtype), rtol=0, atol=1e-12)


def test_half_precision_is_summed_in_full(tmp_path):
    """1000 + 1 in float16 is exact, but a sum of three such numbers is not."""
    values = [1000.0, 1001.0, 1003.0]
    paths = [checkpoint(tmp_path / f"{value}.pt", w=torch.tensor([value]).half()) for value in values]
    mean = average_checkpoints(paths)["model"]["w"]
    assert mean.dtype == torch.float16
    assert mean.item() == torch.tensor(sum(values) / 3).half().item()


def test_equal_counters_keep_their_value_and_the_optimizer_is_dropped(tmp_path):
    paths = [checkpoint(tmp_path / f"{index}.pt", steps=torch.tensor([7]), w=[float(index)]) for index in range(3)]
    state = average_checkpoints(paths)
    assert state["model"]["steps"].tolist() == [7]
    assert state["model"]["steps"].dtype == torch.int64
    assert "last_optimizer_state" not in state
    assert state["cfg"]["model"].arch == "x"


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        pytest.param({"a": [1.0], "b": [1.0]}, "only one has 'b'", id="other-name"),
        pytest.param({"b": [1.0]}, "only one has 'a'", id="missing"),
        pytest.param({"a": [1.0, 2.0]}, r"'a' has shapes \(1,\) and \(2,\)", id="other-shape"),
    ],
)
def test_different_models_are_refused(tmp_path, weights, words):
    paths = [checkpoint(tmp_path / "one.pt", a=[1.0]), checkpoint(tmp_path / "two.pt", **weights)]
    with pytest.raises(ValueError, match=rf"one\.pt.*two\.pt.*different models.*{words}"):
        average_checkpoints(paths)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_the_last_checkpoints_are_those_of_the_latest_updates(tmp_path):
    for epoch, updates in ((1, 50), (2, 100), (10, 900), (9, 1000)):
        checkpoint(tmp_path / f"checkpoint_{epoch}_{updates}.pt", updates)
    checkpoint(tmp_path / "checkpoint_last.pt", 1000)
    checkpoint(tmp_path / "checkpoint_best.pt", 900)
    assert names(last_checkpoints(tmp_path, 3)) == [
        "checkpoint_9_1000.pt",
        "checkpoint_10_900.pt",
        "checkpoint_2_100.pt",
    ]
    assert len(last_checkpoints(tmp_path, 99)) == 4


def test_an_update_that_ended_an_epoch_has_only_the_last_file(tmp_path):
    checkpoint(tmp_path / "checkpoint_1_50.pt", 50)
    checkpoint(tmp_path / "checkpoint_last.pt", 100)
    assert names(last_checkpoints(tmp_path, 2)) == ["checkpoint_last.pt", "checkpoint_1_50.pt"]


def test_checkpoints_by_epoch_are_counted_as_numbers(tmp_path):
    for epoch in (2, 9, 10):
        checkpoint(tmp_path / f"checkpoint{epoch}.pt", epoch)
    checkpoint(tmp_path / "checkpoint_last.pt", 10)
    assert names(last_checkpoints(tmp_path, 2)) == ["checkpoint10.pt", "checkpoint9.pt"]


def test_an_empty_folder_names_the_fix(tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint in .*: train first"):
        last_checkpoints(tmp_path, 2)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = checkpoint(tmp_path / "a.pt", w=[1.0])
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        save_checkpoint({"model": lambda: None}, path)
    assert path.read_bytes() == before
    assert names(list(tmp_path.iterdir())) == ["a.pt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--last", "0"], "--last is 0: give at least 1", id="none"),
        pytest.param([], "no checkpoint in", id="empty-folder"),
    ],
)
def test_the_command_ends_with_one_line(tmp_path, arguments, words):
    with pytest.raises(SystemExit) as caught:
        main(["--inputs", str(tmp_path), "--output", str(tmp_path / "out.pt"), *arguments])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    path = checkpoint(tmp_path / "a.pt", w=[1.0])
    for output, message in (
        ("/proc/x.pt", "cannot write /proc/x.pt .*: choose another --output"),
        (str(path / "x.pt"), f"the output {path} is not a folder: .*"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {message}$"):
            main(["--inputs", str(path), "--output", output])


def test_the_command_averages_the_last_of_a_folder(tmp_path, capsys):
    for updates in (10, 20, 30):
        checkpoint(tmp_path / "in" / f"checkpoint_1_{updates}.pt", updates, w=[float(updates)])
    out = tmp_path / "new" / "mean.pt"
    main(["--inputs", str(tmp_path / "in"), "--last", "2", "--output", str(out)])
    assert load_checkpoint(out)["model"]["w"].tolist() == [25.0]
    assert "checkpoint_1_30.pt, checkpoint_1_20.pt" in capsys.readouterr().out


def test_random_directions_are_not_averaged(tmp_path: Path) -> None:
    """Directions that were drawn again between two checkpoints do not average."""
    name = "encoder.layers.0.self_attn.mechanism.directions"
    paths = []
    for i in range(2):
        paths.append(tmp_path / f"checkpoint_1_{i}.pt")
        checkpoint(paths[-1], **{name: torch.full((2, 2), float(i)), "w": torch.full((1,), float(i))})
    mean = average_checkpoints(paths)["model"]
    assert torch.equal(mean[name], torch.zeros(2, 2)) and float(mean["w"]) == 0.5


def described(path: Path, symbols: list[str] | None = None, arch: str = "s2t_transformer_mla", **options) -> Path:
    """Write a checkpoint whose weights do not show what its options change."""
    model = argparse.Namespace(_name=arch, arch=arch, **options)
    state = {"args": None, "cfg": {"model": model}, "model": {"w": torch.ones(1)}, "optimizer_history": []}
    torch.save(state | {"task_state": {} if symbols is None else {"symbols": symbols}}, path)
    return path


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        pytest.param({}, {"attn_type": "relu"}, "attention at site encoder: softmax and relu", id="mechanism"),
        pytest.param({"attn_type": "relu"}, {"attn_type": "relu", "cross_attn_type": "elu"}, "cross", id="one-site"),
        pytest.param(
            {"attn_type": "gla", "gla_temperature": 8.0},
            {"attn_type": "gla"},
            "gla_temperature: 8.0 and 16",
            id="option",
        ),
        pytest.param({"encoder_attention_heads": 4}, {"encoder_attention_heads": 8}, "heads: 4 and 8", id="heads"),
        pytest.param({"no_scale_embedding": True}, {"no_scale_embedding": False}, "no_scale_embedding", id="scale"),
        pytest.param({}, {"arch": "s2t_transformer"}, "architecture: s2t_transformer_mla and", id="architecture"),
        pytest.param({"symbols": ["a", "b"]}, {"symbols": ["b", "a"]}, "symbols", id="symbols"),
    ],
)
def test_models_that_differ_only_in_options_are_refused(tmp_path, one, two, words):
    paths = [described(tmp_path / "one.pt", **one), described(tmp_path / "two.pt", **two)]
    with pytest.raises(ValueError, match=rf"one\.pt.*two\.pt are of different models \(.*{words}.*\): average"):
        average_checkpoints(paths)


HARMLESS = re.compile(
    r"dropout|layerdrop|freezing|load_pretrained|noise|length_gradient|quant_noise|train_target_length|boundary_weight|"
    r"max_(source|target)_positions"
)
"""Options of models that only training reads, and the names of the mechanisms, which are compared separately."""


@pytest.mark.parametrize("name", sorted(set(OURS.values())))
def test_every_option_of_a_model_is_compared_or_harmless(name):
    parser, options = argparse.ArgumentParser(conflict_handler="resolve"), argparse.Namespace()
    ARCH_MODEL_REGISTRY[name].add_args(parser)
    ARCH_CONFIG_REGISTRY[name](options)
    mechanisms = argparse.ArgumentParser()
    add_attention_args(mechanisms)
    separate = {action.dest for action in mechanisms._actions}
    for option in ({action.dest for action in parser._actions} | vars(options).keys()) - separate:
        assert _DEFINING.search(option) or HARMLESS.search(option), option


def test_options_that_are_spelled_differently_are_the_same_model(tmp_path):
    """A resumed training has other updates, and a newer version of the package stores other defaults."""
    one = described(tmp_path / "one.pt", attn_type="relu", cross_attn_type=None, max_update=10)
    two = described(tmp_path / "two.pt", encoder_attn_type="relu", decoder_attn_type="relu", cross_attn_type="relu")
    assert average_checkpoints([one, two])["model"]["w"].item() == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, number):
    paths = [checkpoint(tmp_path / "one.pt", a=[1.0], b=[2.0]), checkpoint(tmp_path / "two.pt", a=[1.0], b=[number])]
    with pytest.raises(ValueError, match=r"two\.pt has NaN or infinite numbers in 'b': use an earlier"):
        average_checkpoints(paths)
    with pytest.raises(ValueError, match=r"two\.pt has NaN"):
        average_checkpoints(paths[::-1])


def test_a_folder_beside_other_inputs_is_refused(tmp_path):
    for folder in ("a", "b"):
        checkpoint(tmp_path / folder / "checkpoint_1_10.pt", 10, w=[1.0])
    for inputs in (["a", "b"], ["a", "b/checkpoint_1_10.pt"], ["b/checkpoint_1_10.pt", "a"]):
        with pytest.raises(SystemExit, match=r"--inputs has a folder among 2 inputs \(.*/a\): give it alone"):
            main(["--inputs", *(str(tmp_path / name) for name in inputs), "--output", str(tmp_path / "out.pt")])
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"cfg": None}, "has weights without fairseq's options", id="no-options"),
        pytest.param({"model": {}}, "has no weights", id="empty"),
        pytest.param({"model": {1: torch.ones(1)}}, "has a weight without a name", id="number"),
    ],
)
def test_a_file_that_is_no_model_is_not_averaged(tmp_path, change, words):
    state = torch.load(checkpoint(path := tmp_path / "one.pt", w=[1.0]), weights_only=True)
    torch.save(state | change, path)
    with pytest.raises(ValueError, match=rf"one\.pt {words}"):
        average_checkpoints([path])


def test_a_file_counts_once(tmp_path):
    path = checkpoint(tmp_path / "one.pt", w=[1.0])
    (link := tmp_path / "link.pt").symlink_to(path)
    for again in (path, link):
        with pytest.raises(ValueError, match=r"one\.pt is given more than once: give each checkpoint once"):
            average_checkpoints([path, again])


def test_a_link_to_itself_is_reported(tmp_path):
    path, loop = checkpoint(tmp_path / "one.pt", w=[1.0]), tmp_path / "loop.pt"
    loop.symlink_to(loop)
    with pytest.raises(ValueError, match=r"loop\.pt: it cannot be opened \(Too many levels of symbolic links\)"):
        average_checkpoints([path, loop])


def test_the_number_of_checkpoints_is_that_of_a_folder(tmp_path, capsys):
    path, out = checkpoint(tmp_path / "in" / "checkpoint_1_10.pt", 10, w=[1.0]), ["--output", str(tmp_path / "out.pt")]
    with pytest.raises(SystemExit, match=r"--last counts the checkpoints of a folder \(1\), but --inputs has files"):
        main(["--inputs", str(path), "--last", "1", *out])
    main(["--inputs", str(path.parent), *out])
    assert "in has fewer than 5 checkpoints: 1" in capsys.readouterr().out


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(state: object, path: Path) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 1381184 vs 1381136")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ValueError, match=r"/a\.pt \(not written completely, is the disk full\?\): choose"):
        save_checkpoint({}, tmp_path / "a.pt")
    assert list(tmp_path.iterdir()) == []
