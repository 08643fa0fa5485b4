"""The cost of a mechanism is linear in the length, forward and backward: counted, not timed.

The cost of an operation is the number of elements that it reads and writes; views of tensors cost nothing.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mla_fairseq.attention import Blocks, Causal, Full, Mechanism, Prefix, View, kernels, linear
from tests.attention.cases import BUILT, CONSTANT, MECHANISMS, Problem, build, problem

LENGTH, CHUNK, SIZE = 1024, 16, 8
VIEWS: dict[str, Callable[[int], View]] = {
    "full": lambda queries: Full(),
    "causal": lambda queries: Causal(),
    "blocks": lambda queries: Blocks(4),
    "bigblocks": lambda queries: Blocks(2 * CHUNK),
    "prefix": lambda queries: Prefix(torch.arange(queries)),
}
SITES = [(name, view) for name in CONSTANT for view in VIEWS if VIEWS[view](1).in_order or not BUILT[name].in_order]


class Count(TorchDispatchMode):
    """Adds up the elements of all arguments and results of operations, those of autograd's backward pass included."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler for the first operation, which takes seconds

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.elements += sum(x.numel() for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor))
        return result


def cost(run: Callable[[Mechanism, Problem], Tensor], mechanism: Mechanism, view: str, length: int) -> int:
    """Return the elements of one forward and backward pass over so many queries and keys."""
    x = problem(VIEWS[view](length), length, length, batch=1, heads=1, head_dim=SIZE, values=SIZE)
    x = replace(x, q=x.q.requires_grad_(), k=x.k.requires_grad_(), v=x.v.requires_grad_())
    with Count() as count:
        run(mechanism, x).sum().backward()
    return count.elements


def growth(run: Callable[[Mechanism, Problem], Tensor], name: str, view: str) -> float:
    mechanism = build(name, SIZE, chunk=CHUNK)
    return cost(run, mechanism, view, 2 * LENGTH) / cost(run, mechanism, view, LENGTH)


def parallel(mechanism: Mechanism, x: Problem) -> Tensor:
    return mechanism.parallel(*x.part())


def first_call(mechanism: Mechanism, x: Problem) -> Tensor:
    return mechanism.advance({}, *x.part())[0]


def write_and_read(mechanism: Mechanism, x: Problem) -> Tensor:
    """Write all keys, then read with one query."""
    q, k, v, layout = x.part()
    return mechanism.read(mechanism.write({}, k, v, layout), q[..., -1:, :], x.part(queries=slice(-1, None))[-1])


@pytest.mark.parametrize("run", [parallel, first_call, write_and_read])
@pytest.mark.parametrize(("name", "view"), SITES, ids=["-".join(site) for site in SITES])
def test_twice_the_length_costs_twice_as_much(name: str, view: str, run: Callable) -> None:
    assert 1.9 < growth(run, name, view) < 2.2


def test_a_quadratic_cost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quadratic form, and a loop that indexes: each index makes a tensor of all chunks in the backward pass."""
    monkeypatch.setattr(linear, "QUADRATIC_LIMIT", float("inf"))
    assert growth(parallel, "relu", "causal") > 3.5
    monkeypatch.setattr(kernels, "running_sum", indexing_sum)
    assert growth(first_call, "relu", "causal") > 2.5


def indexing_sum(state: Tensor | None, added: Tensor) -> tuple[Tensor, Tensor]:
    states = [torch.zeros_like(added[:, :, 0])]
    for i in range(added.shape[2]):
        states.append(states[-1] + added[:, :, i])
    return torch.stack(states[:-1], dim=2), states[-1]


def step_cost(name: str, position: int) -> int:
    """Return the elements of one decoding step after so many tokens."""
    mechanism = build(name, SIZE, chunk=CHUNK)
    x = problem(Causal(), position + 1, position + 1, batch=1, heads=1, head_dim=SIZE, values=SIZE)
    state = mechanism.write({}, *x.part(keys=slice(position))[1:])
    step = x.part(slice(position, None), slice(position, None))
    with Count() as count:
        mechanism.advance(state, *step)
    return count.elements


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_decoding_step_costs_the_same_at_any_position(name: str) -> None:
    early, late = step_cost(name, 8), step_cost(name, 800)
    assert late == early if name in CONSTANT else late > 10 * early
