"""Queries that see nothing have zero outputs and zero gradients, never NaN, in every form."""

from dataclasses import replace

import pytest
import torch

from mla_fairseq.attention import Causal, Layout, MultiheadAttention
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
