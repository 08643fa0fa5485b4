"""Weights on request: rows sum to one, and weights times values are the output of every form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_fairseq.attention import Full, Layout, MultiheadAttention, Prefix, ReLUAttention
from tests.attention import oracle
from tests.attention.cases import (
    ANYWHERE,
    BUILT,
    CHUNK,
    MECHANISMS,
    SITE_IDS,
    SITES,
    VIEWS,
    assert_close,
    build,
    problem,
    site_problem,
)
from tests.attention.forms import FORMS, forms_of

SURROGATE = tuple(name for name, built in BUILT.items() if isinstance(built, ReLUAttention))
EVERY_SITE = pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
FEW = settings(max_examples=max(4, settings().max_examples // 6))


@pytest.mark.parametrize("length", [1, CHUNK + 1, 40], ids=lambda length: f"T{length}")
@EVERY_SITE
def test_weights_times_values_are_the_output(name: str, view: str, length: int) -> None:
    x, mechanism = site_problem(view, length), build(name)
    q, k, v, layout = x.part()
    weights = mechanism.weights(q, k, layout)
    assert weights.shape == (*q.shape[:-1], k.shape[-2])
    assert_close(weights, oracle.attend(name, mechanism, x)[1])
    for form in forms_of(name):
        assert_close(weights @ v, FORMS[form](mechanism, x)[0])


@EVERY_SITE
@FEW
@given(st.integers(1, 12), st.integers(0, 2**31))
def test_rows_sum_to_one(name: str, view: str, length: int, seed: int) -> None:
    """Or to zero if nothing is seen. With positive queries and keys, every mechanism sees all that is visible."""
    q, k, _, layout = problem(VIEWS[view](length), length, length, seed=seed).part()
    weights = build(name).weights(q.abs(), k.abs(), layout)
    seen = oracle.visibility(layout.view, length, length)
    assert_close(weights.sum(-1), seen.any(-1).double().expand(weights.shape[:-1]))
    assert bool((weights >= 0).all())
    assert not bool((weights * ~seen).any())


@pytest.mark.parametrize("name", SURROGATE)
def test_a_loss_on_surrogate_weights_revives_queries_that_see_nothing(name: str) -> None:
    """Queries share no feature with any key, yet guided attention moves most of the weight to the diagonal."""
    x, mechanism, layout = problem(Full(), 6, 6), build(name), Layout.whole(Full(), 6)
    halves = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=x.q.dtype)
    q, k = (x.q.abs() * halves).requires_grad_(), (x.k.abs() * -halves).requires_grad_()
    assert not bool(mechanism.weights(q, k, layout).any())
    diagonal = torch.eye(6, dtype=q.dtype)
    optimizer = torch.optim.Adam((q, k), lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        weights = mechanism.surrogate_weights(q, k, layout)
        ((weights * (1 - diagonal)).sum(-1) + 1 - weights.sum(-1)).mean().backward()
        optimizer.step()
    weights = mechanism.weights(q, k, layout).detach()
    assert bool((weights.sum(-1) > 0.99).all())
    assert float((weights * diagonal).sum(-1).mean()) > 0.5


@pytest.mark.parametrize("name", SURROGATE)
@pytest.mark.parametrize("view", ["full", "causal"])
def test_a_surrogate_gradient_is_exact_where_features_are_not_zero(name: str, view: str) -> None:
    x, mechanism = problem(VIEWS[view](6), 6, 6), build(name)
    layout, gradients = x.part()[-1], []
    for weigh in (mechanism.surrogate_weights, mechanism.weights):
        q, k = (part.abs().add(1).requires_grad_() for part in (x.q, x.k))
        weights = weigh(q, k, layout)
        direction = torch.linspace(-1, 1, weights.numel(), dtype=weights.dtype).view_as(weights).cos()
        gradients.append(torch.autograd.grad((weights * direction).sum(), (q, k)))
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("name", MECHANISMS)
def test_surrogate_weights_are_the_weights(name: str) -> None:
    q, k, _, layout = site_problem("causal", 6).part()
    assert_close(build(name).surrogate_weights(q, k, layout), build(name).weights(q, k, layout))


@pytest.mark.parametrize("name", ANYWHERE)
def test_multihead_weights_times_values_are_its_output(name: str) -> None:
    attention = MultiheadAttention(8, 2, name, kdim=6).double()
    query, key = torch.randn(5, 2, 8, dtype=torch.float64), torch.randn(7, 2, 6, dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor([[7], [5]])
    layout = Layout.whole(Prefix(torch.tensor([1, 2, 4, 7, 7])), 5, 7, key_mask=mask)
    weights = attention.weights(query, key, layout)
    assert weights.shape == (2, 2, 5, 7)
    v = attention.v_proj(key).unflatten(-1, (2, 4)).permute(1, 2, 0, 3)
    heads = (weights @ v).permute(2, 0, 1, 3).flatten(2)
    assert_close(attention.out_proj(heads), attention(query, key, layout))
    assert torch.equal(attention.weights_from_keys(query, attention.keys(key), layout), weights)
    assert_close(attention.weights(query, key, layout, surrogate=True), weights)
