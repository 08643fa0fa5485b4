"""State is data: batch first, never changed in place, of constant size for linear mechanisms; undo is bit-equal."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import (
    Blocks,
    Causal,
    Full,
    Layout,
    Mechanism,
    MultiheadAttention,
    State,
    View,
    fork,
    nbytes,
    reorder,
)
from tests.attention.cases import CONSTANT, MECHANISMS, SITE_IDS, SITES, Problem, build, problem, site_problem

EVERY_MECHANISM = pytest.mark.parametrize("name", MECHANISMS)
EVERY_SITE = pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
GROWING = sorted(set(MECHANISMS) - set(CONSTANT))
STREAMS = 3


def advance_from(start: int, mechanism: Mechanism, state: dict[str, Tensor], x: Problem) -> tuple[Tensor, dict]:
    """Make one more call: a block of self-attention, or one key and one query of cross-attention."""
    part = slice(start * x.step, (start + 1) * x.step)
    return mechanism.advance(state, *x.part(part, part))


def begun(name: str, view: str) -> tuple[Mechanism, Problem, dict[str, Tensor]]:
    """Return a mechanism, a problem, and the state after the first call."""
    mechanism, x = build(name), site_problem(view, 48, batch=STREAMS)
    return mechanism, x, advance_from(0, mechanism, {}, x)[1]


@EVERY_SITE
def test_tensors_are_replaced_never_changed(name: str, view: str) -> None:
    mechanism, x, state = begun(name, view)
    held = dict(state)
    given = {**held, "q": x.q, "k": x.k, "v": x.v}
    before = {key: (tensor.data_ptr(), tensor._version, tensor.clone()) for key, tensor in given.items()}
    _, after = advance_from(1, mechanism, state, x)
    q, k, v, layout = x.part()
    mechanism.read(mechanism.write(after, k, v, layout), q, layout)
    mechanism.parallel(q, k, v, layout)
    assert state.keys() == held.keys()
    assert all(state[key] is held[key] for key in held)
    for key, (pointer, version, values) in before.items():
        assert (given[key].data_ptr(), given[key]._version) == (pointer, version)
        assert torch.equal(given[key], values)


@EVERY_SITE
def test_dimension_0_is_the_stream(name: str, view: str) -> None:
    _, _, state = begun(name, view)
    assert state
    assert {key: tensor.shape[0] for key, tensor in state.items()} == dict.fromkeys(state, STREAMS)


@EVERY_SITE
def test_undo_is_bit_equal(name: str, view: str) -> None:
    mechanism, x, begin = begun(name, view)
    state: State = {"site": begin}
    saved = fork(state)
    first, state["site"] = advance_from(1, mechanism, state["site"], x)
    lost = state["site"]
    state = fork(saved)
    second, state["site"] = advance_from(1, mechanism, state["site"], x)
    assert torch.equal(first, second)
    assert lost.keys() == state["site"].keys()
    assert all(torch.equal(lost[key], state["site"][key]) for key in lost)


@EVERY_MECHANISM
def test_a_fork_is_a_snapshot(name: str) -> None:
    """Steps of the module on one copy do not change the other; nor do new or removed entries."""
    attention, x = MultiheadAttention(8, 2, name, name="attention"), torch.randn(6, STREAMS, 8)
    nine = torch.full((STREAMS,), 9)
    state: State = {}
    attention(x, x, Layout.at(Causal(), 0, 6, query_length=nine, key_length=nine), state)
    copy = fork(state)
    values = {key: tensor.clone() for key, tensor in copy["attention"].items()}
    assert all(copy["attention"][key] is state["attention"][key] for key in values), "a snapshot copies no tensor"
    attention(x, x, Layout.at(Causal(), 6, 6, query_length=nine, key_length=nine), state)
    reorder(state, torch.tensor([2, 2, 0]))
    state["another module"] = {}
    state["attention"]["more"] = nine
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


def bytes_after(name: str, tokens: int, view: View, chunk: int = 10) -> int:
    x, state, mechanism = problem(view, tokens, tokens, batch=1).to(torch.float32), {}, build(name, dtype=torch.float32)
    for part in (slice(start, start + chunk) for start in range(0, tokens, chunk)):
        state = mechanism.advance(state, *x.part(part, part))[1]
    return nbytes({"site": state})


@pytest.mark.parametrize("view", [Full(), Causal(), Blocks(5)], ids=str)
@EVERY_MECHANISM
def test_only_a_key_value_state_grows(name: str, view: View) -> None:
    if view == Full() and build(name).in_order:
        view = Blocks(10)
    few, many = bytes_after(name, 10, view), bytes_after(name, 500, view)
    assert few > 0
    assert many == (few if name in CONSTANT else 50 * few)


@pytest.mark.parametrize("view", [Causal(window=8), Blocks(5, left=2)], ids=["window8", "blocks5-left2"])
@pytest.mark.parametrize("name", GROWING)
def test_a_limited_view_bounds_the_state(name: str, view: View) -> None:
    assert bytes_after(name, 500, view) == bytes_after(name, 20, view)
    assert bytes_after(name, 20, view) == bytes_after(name, 10, Full()) // 10 * view.reach


def test_nbytes_adds_up_every_tensor() -> None:
    state = {"a": {"x": torch.zeros(2, 3), "y": torch.zeros(4, dtype=torch.int64)}, "b": {"x": torch.zeros(5).bool()}}
    assert nbytes(state) == 6 * 4 + 4 * 8 + 5
    assert nbytes({}) == 0


@EVERY_MECHANISM
def test_reading_a_fresh_stream_is_refused(name: str) -> None:
    q, _, _, layout = site_problem("full", 3).part()
    with pytest.raises(ValueError, match="this state is empty: write keys before reading it"):
        build(name).read({}, q, layout)


@pytest.mark.parametrize("order", [[2, 2, 0], (2, 2, 0), np.array([2, 2, 0])], ids=lambda order: type(order).__name__)
def test_an_order_of_another_type_is_converted(order: Sequence[int]) -> None:
    state = {"a": {"x": torch.arange(3)}}
    reorder(state, order)
    assert state["a"]["x"].tolist() == [2, 2, 0]
