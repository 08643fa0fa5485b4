"""Wrong layouts are refused with a clear error."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import (
    Blocks,
    Causal,
    Full,
    Layout,
    MonotonicMultiheadAttention,
    MultiheadAttention,
    Prefix,
    ReLUAttention,
    View,
)
from tests.attention.cases import LIMITED, MECHANISMS, VIEWS, build, problem


@pytest.mark.parametrize("name", MECHANISMS)
def test_missing_lengths_are_refused_by_mechanisms_that_need_them(name: str) -> None:
    q, k, v, layout = problem(Causal(), 4, 4).part()
    mechanism, four = build(name), torch.tensor([4, 4])
    for given in ({}, {"query_length": four}, {"key_length": four}):
        unknown = Layout(Causal(), layout.queries, layout.keys, **given)
        if mechanism.needs_lengths:
            with pytest.raises(ValueError, match="set needs_lengths = True"):
                mechanism.advance({}, q, k, v, unknown)
        else:
            assert torch.equal(mechanism.advance({}, q, k, v, unknown)[0], mechanism.advance({}, q, k, v, layout)[0])


@pytest.mark.parametrize("lengths", [(1,), (4,), (6,), (2, 4), (2, 1)], ids=str)
def test_prefix_lengths_fit_the_queries(lengths: tuple[int, ...]) -> None:
    """One length for all of 5 queries would otherwise be broadcast."""
    message = f"prefix lengths are for {lengths[-1]} queries, but there are 5"
    with pytest.raises(ValueError, match=re.escape(message)):
        Layout.whole(Prefix(torch.ones(lengths, dtype=torch.long)), 5, 7)


REFUSED: dict[str, tuple[View, int, str]] = {
    **{
        view: (VIEWS[view](7), 7, "a linear mechanism cannot forget.*use softmax, or no window")
        for view in sorted(LIMITED)
    },
    "full": (Full(), 7, "a mechanism with decay needs tokens in order"),
    "prefix": (VIEWS["prefix"](7), 7, "a mechanism with decay needs tokens in order"),
    "causal-across": (Causal(), 9, "keys are the queries' tokens"),
    "blocks-across": (Blocks(2), 9, "keys are the queries' tokens"),
}


def refuses(name: str, case: str) -> bool:
    mechanism = build(name)
    limited, any_order = case in LIMITED, case in ("full", "prefix")
    return (limited and not mechanism.window) or (any_order and mechanism.in_order) or case.endswith("across")


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("case", REFUSED)
def test_a_mechanism_refuses_what_it_cannot_follow(name: str, case: str) -> None:
    """Every entry point of the modules refuses it, whichever form would be faster."""
    view, keys, message = REFUSED[case]
    layout = Layout.whole(view, 7, None if view.in_order and keys == 7 else keys)
    query, key = torch.randn(7, 2, 8), torch.randn(keys, 2, 8)
    attention, monotonic = MultiheadAttention(8, 2, name), MonotonicMultiheadAttention(8, 2, name)
    entries = (
        lambda: attention(query, key, layout),
        lambda: attention(query, key, layout, {}),
        lambda: attention.weights(query, key, layout),
        *((lambda: attention(query, key), lambda: monotonic(query, key)) if case == "full" else ()),  # the default
    )
    for entry in entries:
        if refuses(name, case):
            with pytest.raises(ValueError, match=message):
                entry()
        else:
            entry()


@pytest.mark.parametrize("name", ["relu", "softmax"])
def test_monotonic_heads_need_a_full_view(name: str) -> None:
    x = torch.randn(7, 2, 8)
    with pytest.raises(ValueError, match="the view must be Full"):
        MonotonicMultiheadAttention(8, 2, name)(x, x, Layout.whole(Causal(), 7))


BAD_CALLS = {
    "positions-1d": (lambda m, x: m(x, x, Layout(Full(), torch.arange(4), torch.arange(4))), "int64 positions"),
    "positions-list": (lambda m, x: m(x, x, Layout(Full(), [[0, 1, 2, 3]], [[0, 1, 2, 3]])), "int64 .* but are list"),
    "positions-with-a-gap": (
        lambda m, x: m(x, x, Layout(Full(), torch.arange(4)[None], torch.tensor([[0, 1, 3, 4]]))),
        "keys must be consecutive positions",
    ),
    "start-list": (
        lambda m, x: m(x, x, Layout.at(Full(), [0, 3], 4, 4)),
        r"start must be an int or a tensor \(B,\), but is \[0, 3\]",
    ),
    "length-int": (
        lambda m, x: m(x, x, Layout.at(Full(), 0, 4, 4, query_length=4)),
        r"query_length must be a tensor \(B,\) or \(1,\), but is int",
    ),
    "length-scalar": (
        lambda m, x: m(x, x, Layout.at(Full(), 0, 4, 4, key_length=torch.tensor(4))),
        r"key_length must be a tensor .* but is torch.int64, \(\)",
    ),
    "mask-list": (
        lambda m, x: m(x, x, Layout.at(Full(), 0, 4, 4, key_mask=[[True] * 4] * 2)),
        r"key_mask must be boolean, \(B, S\) = \(2, 4\), .* but is list",
    ),
    "positions-float": (lambda m, x: m(x, x, Layout.at(Full(), torch.tensor([0.5]), 4, 4)), "but are torch.float32"),
    "inside-a-block": (
        lambda m, x: m(x, x, Layout.at(Blocks(4), 2, 4), {}),
        "starts at a block, but start is 2",
    ),
    "other-keys": (lambda m, x: m(x, x, Layout.at(Causal(), 5, 4, 4), {}), "keys are the queries' tokens"),
    "state-without-layout": (lambda m, x: m(x, x, None, {}), "a state needs a layout: give Layout.at"),
    "streams": (lambda m, x: m(x, x, Layout.at(Causal(), torch.zeros(3).long(), 4)), "for 3 streams, but query has 2"),
    "prefixes": (lambda m, x: m(x, x, Layout.whole(Prefix(torch.ones(3, 4).long()), 4, 4)), "for 3 streams"),
    "lengths": (lambda m, x: m(x, x, Layout.whole(Full(), 4, query_length=torch.ones(3).long())), "for 3 streams"),
    "prefix-of-floats": (lambda m, x: Prefix(torch.ones(4)), "must be an int64 tensor .* but are torch.float32"),
    "prefix-of-a-list": (lambda m, x: Prefix([1, 2]), "must be an int64 tensor .* but are list"),
}


@pytest.mark.parametrize("what", BAD_CALLS)
def test_a_wrong_argument_is_refused(what: str) -> None:
    call, message = BAD_CALLS[what]
    with pytest.raises(ValueError, match=message):
        call(MultiheadAttention(8, 2, "cosformer"), torch.randn(4, 2, 8))


@pytest.mark.parametrize("call", [lambda: Layout.at("causal", 0), lambda: Layout.whole(Causal, 4)])
def test_something_else_than_a_view_is_refused(call) -> None:
    with pytest.raises(TypeError, match=r"view must be Causal\(\), .* but is ('causal'|<class .*Causal'>)"):
        call()


@pytest.mark.parametrize("state", [None, {}], ids=["whole", "step"])
def test_a_view_is_not_a_layout(state: dict | None) -> None:
    x = torch.randn(4, 2, 8)
    with pytest.raises(TypeError, match=r"layout must be a Layout, such as Layout.whole\(view, 4\), but is Causal"):
        MultiheadAttention(8, 2, "relu")(x, x, Causal(), state)


@pytest.mark.parametrize("sizes", [(2.0, -1), (2, 1.0)], ids=str)
def test_blocks_have_integer_sizes(sizes: tuple) -> None:
    with pytest.raises(ValueError, match=f"int size .* but have size {sizes[0]} and left {sizes[1]}"):
        Blocks(*sizes)


def test_a_state_of_other_streams_is_refused() -> None:
    attention, state = MultiheadAttention(8, 2, "relu", name="decoder"), {}
    attention(*[torch.randn(1, 2, 8)] * 2, Layout.at(Causal(), 0), state)
    with pytest.raises(ValueError, match="the state of 'decoder' is for 2 streams, but query has 1"):
        attention(*[torch.randn(1, 1, 8)] * 2, Layout.at(Causal(), 1), state)


def test_positions_of_one_side_are_refused() -> None:
    with pytest.raises(TypeError, match="HalfPositions must define both query_positions and key_positions"):

        class HalfPositions(ReLUAttention):
            def key_positions(self, k: Tensor, layout: Layout) -> Tensor:
                return layout.relative_keys(k.dtype).unsqueeze(-1)


def test_a_start_of_numpy_is_checked_as_others_are() -> None:
    for start in (3, np.int64(3)):
        with pytest.raises(ValueError, match="a call starts at a block, but start is 3"):
            Layout.at(Blocks(2), start, 2)
    for start in (3.0, [3, 4], np.array([3, 4])):
        with pytest.raises(ValueError, match="start must be an int or a tensor"):
            Layout.at(Blocks(2), start, 2)
