"""The kernels by themselves: autograd's own check, agreement with ``attend``, and what they refuse."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mla_fairseq.attention import attend, blocks, causal, prefix, read, weights, write
from tests.attention.cases import assert_close

Tensors = dict[str, Tensor]
LENGTHS = torch.tensor([[0, 1, 3, 3, 5]])


def positive(*shape: int, seed: int = 0) -> Tensor:
    """Features and positions away from zero, so that no normaliser is near its limit."""
    return 0.1 + torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def inputs(positions: bool, queries: int = 5, keys: int = 5, batch: int = 1, heads: int = 1) -> Tensors:
    """q, k, v, a state of an earlier time and, perhaps, positions, all of two or three numbers per token."""
    size = 2 if positions else 1
    tensors = {
        "q": positive(batch, heads, queries, 3, seed=1),
        "k": positive(batch, heads, keys, 3, seed=2),
        "v": positive(batch, heads, keys, 2, seed=3) - 0.6,
        "state": positive(batch, heads, 3, size * 3, seed=4),
    }
    if positions:
        tensors |= {"pq": positive(batch, 1, queries, 2, seed=5), "pk": positive(batch, 1, keys, 2, seed=6)}
    return tensors


KERNELS: dict[str, tuple[str, Callable[..., Tensor | tuple[Tensor, Tensor]]]] = {
    "attend": ("q k v pq pk", lambda **x: attend(**x, visible=torch.ones(5, 5, dtype=torch.bool).tril())),
    "weights": ("q k pq pk", lambda **x: weights(**x)),
    "write": ("state k v pk", lambda **x: write(**x)),
    "read": ("state q pq", lambda **x: read(**x)),
    "causal": ("q k v pq pk state", lambda **x: causal(**x, chunk=2)),
    "blocks": ("q k v pq pk state", lambda **x: blocks(**x, size=2, chunk=4)),
    "prefix": ("q k v pq pk state", lambda **x: prefix(**x, lengths=LENGTHS, chunk=2)),
}


@pytest.mark.parametrize("positions", [False, True], ids=["M1", "M2"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_gradcheck(kernel: str, positions: bool) -> None:
    names, function = KERNELS[kernel]
    given = {name: x.requires_grad_() for name, x in inputs(positions).items() if name in names.split()}
    assert torch.autograd.gradcheck(lambda *x: function(**dict(zip(given, x, strict=True))), tuple(given.values()))


@pytest.mark.parametrize("positions", [False, True], ids=["M1", "M2"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_inputs_stay_as_they_were(kernel: str, positions: bool) -> None:
    names, function = KERNELS[kernel]
    given = {name: x for name, x in inputs(positions).items() if name in names.split()}
    before = {name: (x._version, x.clone()) for name, x in given.items()}
    function(**given)
    for name, (version, values) in before.items():
        assert given[name]._version == version
        assert torch.equal(given[name], values)


def block_mask(length: int, size: int) -> Tensor:
    return torch.tensor([[s // size <= t // size for s in range(length)] for t in range(length)])


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, int]:
    return {"batch": draw(st.integers(1, 3)), "heads": draw(st.integers(1, 2)), "queries": draw(st.integers(1, 20))}


@pytest.mark.parametrize("positions", [False, True], ids=["M1", "M2"])
@given(shapes(), st.integers(1, 9), st.integers(1, 9))
def test_blocks_is_attend_under_a_block_mask(positions: bool, shape: dict[str, int], size: int, chunk: int) -> None:
    x = inputs(positions, keys=shape["queries"], **shape)
    del x["state"]
    output, state = blocks(**x, size=size, chunk=chunk)
    assert_close(output, attend(**x, visible=block_mask(shape["queries"], size)))
    assert_close(state, write(None, x["k"], x["v"], x.get("pk")))


@pytest.mark.parametrize("positions", [False, True], ids=["M1", "M2"])
@given(shapes(), st.integers(0, 20), st.integers(1, 9), st.data())
def test_prefix_is_attend_under_a_prefix_mask(
    positions: bool, shape: dict[str, int], keys: int, chunk: int, data: st.DataObject
) -> None:
    x = inputs(positions, keys=keys, **shape)
    del x["state"]
    rows = st.lists(st.integers(0, keys + 2), min_size=shape["queries"], max_size=shape["queries"]).map(sorted)
    streams = data.draw(st.sampled_from(sorted({1, shape["batch"]})))
    lengths = torch.tensor(data.draw(st.lists(rows, min_size=streams, max_size=streams), label="lengths"))
    output, state = prefix(**x, lengths=lengths, chunk=chunk)
    assert_close(output, attend(**x, visible=(torch.arange(keys) < lengths.unsqueeze(-1)).unsqueeze(1)))
    assert_close(state, write(None, x["k"], x["v"], x.get("pk")))


@pytest.mark.parametrize("positions", [False, True], ids=["M1", "M2"])
@pytest.mark.parametrize("cut", range(1, 5), ids=lambda cut: f"cut{cut}")
def test_a_state_stands_for_the_keys_before(positions: bool, cut: int) -> None:
    """Only what the state holds counts: reading it is attending to the keys that were written."""
    x = inputs(positions)
    del x["state"]
    first = {name: tensor[..., :cut, :] for name, tensor in x.items()}
    later = {name: tensor[..., cut:, :] for name, tensor in x.items()}
    state = write(None, first["k"], first["v"], first.get("pk"))
    every = {**first, "q": x["q"]} | ({"pq": x["pq"]} if positions else {})
    assert_close(read(state, x["q"], x.get("pq")), attend(**every))
    output, after = causal(**later, state=state, chunk=2)
    assert_close(output, causal(**x, chunk=2)[0][..., cut:, :])
    assert_close(after, write(None, x["k"], x["v"], x.get("pk")))


@pytest.mark.parametrize("kernel", ["attend", "causal", "blocks", "prefix"])
def test_positions_broadcast_over_batch_and_heads(kernel: str) -> None:
    x = inputs(True, batch=2, heads=2)
    del x["state"]
    x |= {"pq": x["pq"][:1], "pk": x["pk"][:1]}
    shared = {**x, "pq": x["pq"][0, 0], "pk": x["pk"][0, 0]}
    first, second = (KERNELS[kernel][1](**tensors) for tensors in (x, shared))
    assert_close(*(y if kernel == "attend" else y[0] for y in (first, second)))


def test_causal_with_one_token_is_write_then_read() -> None:
    x = inputs(True, queries=1, keys=1)
    output, state = causal(**x)
    assert torch.equal(state, write(x["state"], x["k"], x["v"], x["pk"]))
    assert torch.equal(output, read(state, x["q"], x["pq"]))


@pytest.mark.parametrize("kernel", ["causal", "blocks"])
def test_self_attention_refuses_other_numbers_of_keys(kernel: str) -> None:
    x = inputs(False, queries=5, keys=4)
    with pytest.raises(ValueError, match="as many queries as keys, but has 5 and 4"):
        KERNELS[kernel][1](**x)


@pytest.mark.parametrize(("size", "chunk"), [(0, 4), (4, 0), (-1, 4)], ids=["size0", "chunk0", "size-1"])
def test_sizes_are_at_least_one(size: int, chunk: int) -> None:
    with pytest.raises(ValueError, match=f"must be at least 1, but are {size} and {chunk}"):
        blocks(**inputs(False), size=size, chunk=chunk)


def test_a_prefix_without_queries_writes_the_keys() -> None:
    x = inputs(True, queries=0)
    output, state = prefix(**x, lengths=torch.zeros(1, 0, dtype=torch.long))
    assert output.shape[-2] == 0
    assert_close(state, write(x["state"], x["k"], x["v"], x["pk"]))


def test_a_prefix_does_not_shrink() -> None:
    with pytest.raises(ValueError, match="must not shrink"):
        prefix(**inputs(False), lengths=torch.tensor([[1, 2, 1, 2, 3]]))
