"""Every tensor is made where its inputs are. The device "meta" holds no numbers, and element-wise operations refuse to
mix it with another, so it stands for a GPU here."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import Lengths
from tests.attention.cases import SITES, Problem, build, site_problem
from tests.attention.forms import FORMS

META = torch.device("meta")
# prefix lengths are read as numbers, and a meta tensor has none
SITES_OF_META = [(name, view) for name, view in SITES if view != "prefix"]


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none for meta tensors; for what happens under it see ``test_precision.py``."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())


def elsewhere(view: str, masked: bool) -> Problem:
    """A problem on the device without numbers."""
    x = site_problem(view, 20)
    lengths = Lengths(x.lengths.query.to(META), x.lengths.key.to(META))
    mask = x.key_mask.to(META) if masked else None
    return replace(x, q=x.q.to(META), k=x.k.to(META), v=x.v.to(META), lengths=lengths, key_mask=mask)


def devices(*tensors: Tensor) -> set[torch.device]:
    return {tensor.device for tensor in tensors}


@pytest.mark.parametrize("form", ["quadratic", "cuts"])  # one code path each; meta tensors are slow in many steps
@pytest.mark.parametrize(("name", "view"), SITES_OF_META, ids=["-".join(site) for site in SITES_OF_META])
def test_a_form_stays_on_its_device(name: str, view: str, form: str) -> None:
    output, state = FORMS[form](build(name).to(META), elsewhere(view, masked=True))
    assert devices(output, *(state or {}).values()) == {META}


@pytest.mark.parametrize("masked", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize(("name", "view"), SITES_OF_META, ids=["-".join(site) for site in SITES_OF_META])
def test_weights_and_default_lengths_stay_on_their_device(name: str, view: str, masked: bool) -> None:
    x = elsewhere(view, masked)
    assert devices(build(name).to(META).weights(x.q, x.k, x.view, x.key_mask)) == {META}


def test_meta_refuses_a_mixture() -> None:
    x = elsewhere("causal", masked=True)
    with pytest.raises(RuntimeError, match="device"):
        FORMS["quadratic"](build("relu"), replace(x, key_mask=torch.ones(x.key_mask.shape, dtype=torch.bool)))
