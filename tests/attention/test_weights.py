"""Weights on request: rows sum to one, and with them the values give the output of every form."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mla_fairseq.attention import MultiheadAttention, Prefix
from tests.attention import oracle
from tests.attention.cases import ANYWHERE, CHUNK, SITE_IDS, SITES, VIEWS, assert_close, build, problem, site_problem
from tests.attention.forms import FORMS

FLAT = ("cosformer", "leap", "relu", "relu2")
EVERY_SITE = pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)


@pytest.mark.parametrize("length", [1, CHUNK + 1, 40], ids=lambda length: f"T{length}")
@EVERY_SITE
def test_weights_times_values_are_the_output(name: str, view: str, length: int) -> None:
    x, mechanism = site_problem(view, length), build(name)
    weights = mechanism.weights(x.q, x.k, x.view, x.key_mask, x.lengths)
    assert weights.shape == (*x.q.shape[:-1], x.k.shape[-2])
    assert_close(weights, oracle.attend(name, mechanism, x.q, x.k, x.v, x.view, x.key_mask, x.lengths)[1])
    for form in FORMS.values():
        assert_close(weights @ x.v, form(mechanism, x)[0])


@EVERY_SITE
@given(st.integers(1, 12), st.integers(0, 2**31))
def test_rows_sum_to_one(name: str, view: str, length: int, seed: int) -> None:
    """Or to zero where nothing is seen. Positive queries and keys: every mechanism sees all that is visible."""
    x = problem(VIEWS[view](length), length, length, seed=seed)
    weights = build(name).weights(x.q.abs(), x.k.abs(), x.view, None, x.lengths)
    seen = oracle.visibility(x.view, length, length)
    assert_close(weights.sum(-1), seen.any(-1).double().expand(weights.shape[:-1]))
    assert bool((weights >= 0).all())
    assert not bool((weights * ~seen).any())


@pytest.mark.parametrize("name", FLAT)
def test_a_loss_upon_weights_leads_back_from_where_nothing_is_seen(name: str) -> None:
    """Queries share no feature with any key: guided attention still finds most of the diagonal of 1 in 6."""
    x, mechanism = problem(VIEWS["full"](6), 6, 6), build(name)
    halves = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=x.q.dtype)
    q, k = (x.q.abs() * halves).requires_grad_(), (x.k.abs() * -halves).requires_grad_()
    assert not bool(mechanism.weights(q, k, x.view).any())
    diagonal = torch.eye(6, dtype=q.dtype)
    optimizer = torch.optim.Adam((q, k), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        weights = mechanism.weights(q, k, x.view)
        ((weights * (1 - diagonal)).sum(-1) + 1 - weights.sum(-1)).mean().backward()
        optimizer.step()
    weights = mechanism.weights(q, k, x.view).detach()
    assert bool((weights.sum(-1) > 0.99).all())
    assert float((weights * diagonal).sum(-1).mean()) > 0.5


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("view", ["full", "causal"])
def test_the_gradient_of_weights_is_exact_where_features_are_awake(name: str, view: str) -> None:
    x, mechanism = problem(VIEWS[view](6), 6, 6), build(name)
    direction = torch.randn_like(mechanism.weights(x.q, x.k, x.view))
    gradients = []
    for weigh in (
        mechanism.weights,
        lambda *given: oracle.attend(name, mechanism, given[0], given[1], x.v, *given[2:])[1],
    ):
        q, k = (part.abs().add(1).requires_grad_() for part in (x.q, x.k))
        weights = weigh(q, k, x.view, x.key_mask, x.lengths)
        gradients.append(torch.autograd.grad((weights * direction).sum(), (q, k)))
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("name", FLAT)
def test_weights_are_the_same_with_a_gradient(name: str) -> None:
    x, mechanism = problem(VIEWS["full"](6), 6, 6), build(name)
    q = x.q.clone().requires_grad_()
    assert_close(mechanism.weights(q, x.k, x.view).detach(), mechanism.weights(x.q, x.k, x.view))


@pytest.mark.parametrize("name", ANYWHERE)
def test_multihead_gives_weights_of_its_projections(name: str) -> None:
    attention = MultiheadAttention(8, 2, name, kdim=6).double()
    query, key = torch.randn(5, 2, 8, dtype=torch.float64), torch.randn(7, 2, 6, dtype=torch.float64)
    given = {
        "view": Prefix(torch.tensor([1, 2, 4, 7, 7])),
        "key_mask": torch.arange(7) < torch.tensor([[7], [5]]),
        "query_length": torch.tensor([5, 5]),
        "key_length": torch.tensor([7, 5]),
    }
    weights = attention.weights(query, key, **given)
    assert weights.shape == (2, 2, 5, 7)
    v = attention.v_proj(key).unflatten(-1, (2, 4)).permute(1, 2, 0, 3)
    heads = (weights @ v).permute(2, 0, 1, 3).flatten(2)
    assert_close(attention.out_proj(heads), attention(query, key, **given))
