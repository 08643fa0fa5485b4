"""State is data: batch first, never changed in place, of constant size where sums carry it; undo is bit-equal."""

import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import (
    Blocks,
    Causal,
    Full,
    Lengths,
    MultiheadAttention,
    Prefix,
    State,
    View,
    fork,
    nbytes,
    reorder,
)
from tests.attention.cases import (
    ANYWHERE,
    KEY_VALUE,
    MECHANISMS,
    SITE_IDS,
    SITES,
    Problem,
    build,
    problem,
    site_problem,
)

EVERY_MECHANISM = pytest.mark.parametrize("name", MECHANISMS)
STREAMS = 3


def advance_by_one(mechanism: torch.nn.Module, state: dict[str, Tensor], x: Problem) -> tuple[Tensor, dict]:
    """One more call: a block of self-attention, or a key and a query of cross-attention."""
    size = x.view.size if isinstance(x.view, Blocks) else 1
    view = Prefix(torch.tensor([1])) if isinstance(x.view, Prefix) else x.view
    q, k, v = (tensor[..., :size, :] for tensor in (x.q, x.k, x.v))
    return mechanism.advance(state, q, k, v, view, x.key_mask[:, :size], x.lengths)


def begun(name: str, view: str) -> tuple[torch.nn.Module, Problem, dict[str, Tensor]]:
    mechanism, x = build(name), site_problem(view, 24, batch=STREAMS)
    return mechanism, x, advance_by_one(mechanism, {}, x)[1]


@pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
def test_tensors_are_replaced_never_changed(name: str, view: str) -> None:
    mechanism, x, state = begun(name, view)
    held = dict(state)
    before = {key: (tensor.data_ptr(), tensor._version, tensor.clone()) for key, tensor in held.items()}
    _, after = advance_by_one(mechanism, state, x)
    after = mechanism.write(after, x.k, x.v, x.key_mask, x.lengths)
    mechanism.read(after, x.q, x.lengths)
    assert state.keys() == held.keys()
    for key, (pointer, version, values) in before.items():
        assert state[key] is held[key]
        assert (state[key].data_ptr(), state[key]._version) == (pointer, version)
        assert torch.equal(state[key], values)


@pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
def test_dimension_0_is_the_stream(name: str, view: str) -> None:
    mechanism, x, state = begun(name, view)
    state = mechanism.read(state, x.q[..., :1, :], x.lengths)[1]
    assert state
    assert {key: tensor.shape[0] for key, tensor in state.items()} == dict.fromkeys(state, STREAMS)


@pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
def test_undo_is_bit_equal(name: str, view: str) -> None:
    mechanism, x, begin = begun(name, view)
    state: State = {"site": begin}
    saved = fork(state)
    first, state["site"] = advance_by_one(mechanism, state["site"], x)
    lost = state["site"]
    state = fork(saved)
    second, state["site"] = advance_by_one(mechanism, state["site"], x)
    assert torch.equal(first, second)
    assert lost.keys() == state["site"].keys()
    assert all(torch.equal(lost[key], state["site"][key]) for key in lost)


@EVERY_MECHANISM
def test_a_fork_is_a_snapshot(name: str) -> None:
    """Steps through the module, on either copy, leave the other as it was."""
    attention, x = MultiheadAttention(8, 2, name), torch.randn(6, STREAMS, 8)
    lengths = {"query_length": torch.full((STREAMS,), 9), "key_length": torch.full((STREAMS,), 9)}
    state: State = {}
    attention(x, x, Causal(), state=state, **lengths)
    copy = fork(state)
    values = {key: tensor.clone() for key, tensor in copy["attention"].items()}
    assert all(copy["attention"][key] is state["attention"][key] for key in values), "a snapshot copies no tensor"
    attention(x, x, Causal(), state=state, **lengths)
    reorder(state, torch.tensor([2, 2, 0]))
    state["another module"] = {}
    assert copy.keys() == {"attention"}
    assert copy["attention"].keys() == values.keys()
    assert all(torch.equal(copy["attention"][key], values[key]) for key in values)


@EVERY_MECHANISM
def test_reorder_repeats_and_drops_streams(name: str) -> None:
    _, _, begin = begun(name, "causal")
    state: State = {"a": begin, "b": {key: tensor.clone() for key, tensor in begin.items()}}
    order = torch.tensor([2, 0, 0, 2])
    reorder(state, order)
    assert state.keys() == {"a", "b"}
    for tensors in state.values():
        assert tensors.keys() == begin.keys()
        assert all(torch.equal(tensors[key], begin[key][order]) for key in begin)


def test_what_modules_share_they_share_in_a_new_order() -> None:
    count = torch.arange(3)
    state: State = {"a": {"queries": count, "keys": count}, "b": {"keys": count, "memory": torch.rand(3, 2)}}
    reorder(state, torch.tensor([1, 1]))
    assert state["a"]["queries"] is state["a"]["keys"] is state["b"]["keys"]
    assert state["b"]["keys"].tolist() == [1, 1]


def bytes_after(name: str, tokens: int, view: View, piece: int = 10) -> int:
    x, state, mechanism = problem(view, tokens, tokens, batch=1), {}, build(name, dtype=torch.float32)
    x, lengths = x.to(torch.float32), Lengths(torch.tensor([tokens]), torch.tensor([tokens]))
    for start in range(0, tokens, piece):
        q, k, v = (tensor[..., start : start + piece, :] for tensor in (x.q, x.k, x.v))
        state = mechanism.advance(state, q, k, v, view, None, lengths)[1]
    return nbytes({"site": state})


@pytest.mark.parametrize(
    ("name", "view"),
    [(name, view) for view in (Full(), Causal(), Blocks(5)) for name in (ANYWHERE if view == Full() else MECHANISMS)],
)
def test_only_a_key_value_state_grows(name: str, view: View) -> None:
    few, many = bytes_after(name, 10, view), bytes_after(name, 1000, view)
    assert few > 0
    assert many == (100 * few if name in KEY_VALUE else few)


@pytest.mark.parametrize("view", [Causal(window=8), Blocks(5, left=2)], ids=["window8", "blocks5-left2"])
@pytest.mark.parametrize("name", sorted(KEY_VALUE))
def test_a_limited_view_bounds_it(name: str, view: View) -> None:
    assert bytes_after(name, 1000, view) == bytes_after(name, 20, view)
    assert bytes_after(name, 20, view) == bytes_after(name, 10, Full()) // 10 * view.reach


def test_the_entries_of_a_fork_are_its_own() -> None:
    """A caller may take tensors out of a state, or put some in: the snapshot keeps what it had."""
    state: State = {"site": {"memory": torch.zeros(2, 3)}}
    copy = fork(state)
    state["site"]["memory"] = torch.ones(2, 3)
    state["site"]["other"] = torch.ones(2)
    assert copy["site"].keys() == {"memory"}
    assert not bool(copy["site"]["memory"].any())


def test_nbytes_adds_up_every_tensor() -> None:
    state = {"a": {"x": torch.zeros(2, 3), "y": torch.zeros(4, dtype=torch.int64)}, "b": {"x": torch.zeros(5).bool()}}
    assert nbytes(state) == 6 * 4 + 4 * 8 + 5
    assert nbytes({}) == 0


@EVERY_MECHANISM
def test_a_fresh_stream_has_nothing_to_read(name: str) -> None:
    x = site_problem("full", 3)
    for lengths in (x.lengths, Lengths()):
        with pytest.raises(ValueError, match="nothing was written to this state: write keys before reading it"):
            build(name).read({}, x.q, lengths)


def test_one_length_for_all_streams_is_each_stream_s_own() -> None:
    """Or the streams could not be reordered."""
    attention = MultiheadAttention(8, 2, "cosformer")
    state, length = {}, torch.tensor([9])
    x = torch.randn(3, 2, 8)
    attention(x, x, Causal(), state=state, query_length=length, key_length=length)
    reorder(state, torch.tensor([1, 0, 1]))
    assert all(len(tensor) == 3 for tensor in state["attention"].values())
