"""Every tensor is made on the device of its inputs.

Here, tensors that are made without a device are made on "meta", and operations refuse to mix it with another device:
the CPU of the inputs represents a GPU.
"""

import pytest
import torch

from mla_fairseq.attention import Causal, Full, Layout
from tests.attention.cases import SITE_IDS, SITES, build, site_problem
from tests.attention.forms import FORMS, forms_of

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
def test_tensors_stay_on_their_device(name: str, view: str) -> None:
    mechanism, x = build(name), site_problem(view, 20)
    with META:
        for form in forms_of(name):
            output, state = FORMS[form](mechanism, x)
            assert {tensor.device for tensor in (output, *(state or {}).values())} == {CPU}
        q, k, _, layout = x.part()
        assert mechanism.weights(q, k, layout).device == CPU


def test_a_layout_is_made_on_its_device() -> None:
    mask, start = torch.ones(2, 5, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    with META:
        made = (
            Layout.whole(Full(), 5, device="cpu"),
            Layout.whole(Full(), 5, 5, key_mask=mask, device="cpu"),
            Layout.at(Causal(), start, query_length=start, key_length=start),
        )
    for layout in made:
        tensors = (layout.queries, layout.keys, layout.query_length, layout.key_length)
        assert {tensor.device for tensor in tensors} == {CPU}


def test_a_tensor_made_without_a_device_is_noticed() -> None:
    with META:
        assert Layout.at(Full(), 0).queries.device == META
