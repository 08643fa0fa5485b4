"""Checkpoints of version 0.1 and of other mechanisms load."""

import pytest
import torch

from mla_fairseq.attention import Causal, Layout, MultiheadAttention, ReLUAttention
from tests.attention.cases import MECHANISMS

T, B, C, H = 9, 3, 8, 2

FORMER = {
    "hedgehog": {"query_map.": "features.query_map.", "key_map.": "features.key_map."},
    "leap": {"query_proportion.": "positions.query_proportion.", "key_proportion.": "positions.key_proportion."},
    "performer": {"directions": "features.directions"},
    "gla": {"projection.": "gates.projection."},
}


@pytest.mark.parametrize("name", FORMER)
def test_a_checkpoint_of_version_0_1_loads(name: str) -> None:
    attention, x = MultiheadAttention(C, H, name), torch.randn(T, B, C)
    checkpoint = {}
    for key, tensor in attention.state_dict().items():
        for new, former in FORMER[name].items():
            key = key.replace(f"mechanism.{new}", f"mechanism.{former}")
        checkpoint[f"decoder.{key}"] = tensor + torch.rand_like(tensor)
    loaded = MultiheadAttention(C, H, name)
    renamed = loaded.upgrade_state_dict_named(dict(checkpoint), "decoder")
    loaded.load_state_dict({key.removeprefix("decoder."): tensor for key, tensor in renamed.items()})
    moved = sum(1 for key in checkpoint if key not in renamed)
    assert moved == sum(1 for _ in attention.mechanism.state_dict()) > 0
    attention.load_state_dict(dict(zip(attention.state_dict(), checkpoint.values(), strict=True)))
    whole = Layout.whole(Causal(), T)
    assert torch.equal(loaded(x, x, whole), attention(x, x, whole))


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_checkpoint_of_another_mechanism_loads(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Parameters of the other mechanism are dropped; missing ones start from scratch and are logged."""
    other = {f"decoder.{key}": tensor for key, tensor in MultiheadAttention(C, H, "leap").state_dict().items()}
    attention = MultiheadAttention(C, H, name)
    upgraded = attention.upgrade_state_dict_named(other, "decoder")
    attention.load_state_dict({key.removeprefix("decoder."): tensor for key, tensor in upgraded.items()})
    new = attention.mechanism.state_dict().keys() - MultiheadAttention(C, H, "leap").mechanism.state_dict().keys()
    assert ("start from scratch" in caplog.text) == bool(new)


def test_every_parameter_that_starts_from_scratch_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    other = {f"decoder.{key}": x for key, x in MultiheadAttention(C, H, "relu").state_dict().items()}
    for name, parameters in (("performer", ("directions",)), ("gla", ("projection.weight", "projection.bias"))):
        caplog.clear()
        MultiheadAttention(C, H, name).upgrade_state_dict_named(dict(other), "decoder")
        listed = ", ".join(f"decoder.mechanism.{parameter}" for parameter in parameters)
        assert caplog.messages == [f"parameters that are not in the checkpoint start from scratch: {listed}"]


def test_a_submodule_with_a_former_name_keeps_its_parameters() -> None:
    """Only names of version 0.1 are renamed, not the same names in a mechanism that has them."""

    class Placed(ReLUAttention):
        def __init__(self, head_dim: int, options: None = None) -> None:
            super().__init__(head_dim)
            self.positions = torch.nn.Linear(head_dim, 1)

    trained, fresh = (MultiheadAttention(8, 2, Placed(4)) for _ in range(2))
    state = {f"site.{name}": tensor for name, tensor in trained.state_dict().items()}
    fresh.upgrade_state_dict_named(state, "site")
    fresh.load_state_dict({name.removeprefix("site."): tensor for name, tensor in state.items()})
    assert torch.equal(fresh.mechanism.positions.weight, trained.mechanism.positions.weight)
