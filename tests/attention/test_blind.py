"""Queries that see nothing have zero outputs and zero gradients, never NaN, in every form."""

from dataclasses import replace

import pytest
import torch

from mla_fairseq.attention import Blocks, Causal, Full, Layout, MultiheadAttention, View
from mla_fairseq.attention.numerics import EPS
from tests.attention.cases import MECHANISMS, build, site_problem
from tests.attention.forms import EVERY_WAY, FORMS, differentiate


@EVERY_WAY
def test_all_padding(name: str, view: str, form: str) -> None:
    x = site_problem(view, 7).to(torch.float32)
    x = replace(x, key_mask=torch.stack([torch.zeros_like(x.key_mask[0]), torch.ones_like(x.key_mask[0])]))
    result = differentiate(FORMS[form], build(name, dtype=torch.float32), x)
    assert all(bool(tensor.isfinite().all()) for tensor in result.values())
    for what in ("output", "gradient of q", "gradient of k", "gradient of v"):
        tensor = result[what]
        assert not bool(tensor[0].any()), f"{what} of the padded stream is not zero"
        assert bool(tensor[1].any()), f"{what} of the other stream is zero"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["cosformer", "elu", "quadratic_distance", "relu"])
def test_queries_without_features_are_blind(name: str, form: str) -> None:
    """A ReLU that is zero everywhere sees nothing: the normalizer is zero, the output too. ELU + 1 is never zero."""
    x = site_problem("causal", 5)
    output, _ = FORMS[form](build(name), replace(x, q=-x.q.abs()))
    assert bool(output.isfinite().all())
    assert bool(output.any()) == (name == "elu")


@pytest.mark.parametrize("name", MECHANISMS)
def test_projections_of_an_all_padded_batch_learn_nothing(name: str) -> None:
    attention, x = MultiheadAttention(8, 2, name), torch.randn(5, 2, 8)
    attention(x, x, Layout.whole(Causal(), 5, key_mask=torch.zeros(2, 5, dtype=torch.bool))).sum().backward()
    for parameter, tensor in attention.named_parameters():
        assert bool(tensor.grad.isfinite().all()), parameter
        assert bool(tensor.grad.any()) == (parameter == "out_proj.bias"), parameter


@pytest.mark.parametrize("view", [Causal(), Blocks(2)], ids=["causal", "blocks"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_a_call_without_tokens_changes_nothing(name: str, view: View) -> None:
    attention, x = MultiheadAttention(8, 2, name), torch.randn(4, 2, 8)
    assert attention(x[:0], x[:0], Layout.whole(view, 0)).shape == (0, 2, 8)
    state, lengths = {}, torch.tensor([8])
    for start, length in ((0, 0), (0, 4), (4, 0), (4, 4)):
        layout = Layout.at(view, start, length, query_length=lengths, key_length=lengths)
        output = attention(x[:length], x[:length], layout, state)
        assert output.shape == (length, 2, 8)
    without: dict = {}
    for start in (0, 4):
        layout = Layout.at(view, start, 4, query_length=lengths, key_length=lengths)
        expected = attention(x, x, layout, without)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("name", MECHANISMS)
def test_weights_without_keys_are_empty(name: str) -> None:
    mechanism, x = build(name, dtype=torch.float32), torch.randn(2, 2, 3, 4)
    view, queries = (Causal(), 0) if mechanism.in_order else (Full(), 3)
    layout = Layout.whole(view, queries, None if mechanism.in_order else 0)
    assert mechanism.weights(x[:, :, :queries], x[:, :, :0], layout).shape == (2, 2, queries, 0)


def test_small_scores_shrink_the_output() -> None:
    """Divisors are at least EPS, so a row of weights sums to less than one where its scores sum to less."""
    q, k = torch.tensor([[[[EPS / 2]]]]), torch.ones(1, 1, 1, 1)
    torch.testing.assert_close(build("relu").weights(q, k, Layout.whole(Full(), 1, 1)).item(), 0.5)
