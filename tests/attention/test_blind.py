"""Queries that see nothing get zeros and zero gradients, never NaN, in every form and dtype."""

from dataclasses import replace

import pytest
import torch

from mla_fairseq.attention import Causal, MultiheadAttention, Prefix
from tests.attention.cases import ANYWHERE, MECHANISMS, build, site_problem
from tests.attention.forms import EVERY_WAY, FORMS, differentiate

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


@DTYPES
@EVERY_WAY
def test_all_padding(name: str, view: str, form: str, dtype: torch.dtype) -> None:
    x = site_problem(view, 7).to(dtype)
    x = replace(x, key_mask=torch.stack([torch.zeros_like(x.key_mask[0]), torch.ones_like(x.key_mask[0])]))
    result = differentiate(FORMS[form], build(name, dtype=dtype), x)
    assert all(bool(tensor.isfinite().all()) for tensor in result.values())
    for what in ("output", "gradient of q", "gradient of k", "gradient of v"):
        tensor = result[what]
        assert not bool(tensor[0].any()), f"{what} of the padded stream is not zero"
        assert bool(tensor[1].any()), f"{what} of the other stream is zero"


@DTYPES
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ANYWHERE)
def test_prefix_of_no_keys(name: str, form: str, dtype: torch.dtype) -> None:
    x = replace(site_problem("prefix", 4).to(dtype), view=Prefix(torch.tensor([0, 0, 3, 3])), cuts=(1,), key_mask=None)
    result = differentiate(FORMS[form], build(name, dtype=dtype), x)
    assert all(bool(tensor.isfinite().all()) for tensor in result.values())
    assert not bool(result["output"][..., :2, :].any())
    assert not bool(result["gradient of q"][..., :2, :].any())
    assert not bool(result["gradient of k"][..., 3:, :].any())
    assert not bool(result["gradient of v"][..., 3:, :].any())
    assert bool(result["output"][..., 2:, :].any())


@pytest.mark.parametrize("name", ANYWHERE)
def test_weights_of_a_blind_row_are_zero(name: str) -> None:
    x = site_problem("prefix", 4)
    weights = build(name).weights(x.q, x.k, Prefix(torch.tensor([0, 0, 3, 3])), None, x.lengths)
    assert not bool(weights[..., :2, :].any())
    assert bool(weights[..., 2:, :].any())


@pytest.mark.parametrize("name", ["cosformer", "elu", "quadratic_distance", "relu"])
def test_queries_without_content_are_blind(name: str) -> None:
    """A ReLU that is silent everywhere sees nothing: the normaliser is zero, the output too. ELU is never silent."""
    x = site_problem("causal", 5)
    output, _ = FORMS["chunked"](build(name), replace(x, q=-x.q.abs()))
    assert bool(output.isfinite().all())
    assert bool(output.any()) == (name == "elu")


@pytest.mark.parametrize("name", MECHANISMS)
def test_projections_of_an_all_padded_batch_learn_nothing(name: str) -> None:
    torch.manual_seed(0)
    attention = MultiheadAttention(8, 2, name)
    x = torch.randn(5, 2, 8)
    attention(x, x, Causal(), key_mask=torch.zeros(2, 5, dtype=torch.bool)).sum().backward()
    for parameter, tensor in attention.named_parameters():
        assert bool(tensor.grad.isfinite().all()), parameter
        assert bool(tensor.grad.any()) == (parameter == "out_proj.bias"), parameter
