"""Monotonic heads over every mechanism: training against decoding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mla_fairseq.attention import (
    Full,
    Layout,
    Monotonic,
    MonotonicMultiheadAttention,
    build_attention,
    fork,
    reorder,
)
from tests.attention.cases import ANYWHERE

DOUBLE = torch.float64
SOFT = ["hard_aligned", "infinite_lookback", "chunkwise"]
LENGTHS = {"query_length": torch.tensor([9]), "key_length": torch.tensor([40])}


def attention(mechanism: str, soft: str, ratio: int, **more) -> MonotonicMultiheadAttention:
    """Return a module whose energies are so large that every p is 0 or 1."""
    torch.manual_seed(3)
    built = build_attention(mechanism, 4)
    rule = Monotonic(soft, ratio=ratio, chunk=3, energy_bias=True, energy_bias_init=-1.0, **more)
    module = MonotonicMultiheadAttention(12, 3, built, kdim=10, monotonic=rule).to(DOUBLE).eval()
    with torch.no_grad():
        module.q_proj_mono.weight *= 1e8
        module.energy_bias *= 1e7
    return module


def target_at(place: int) -> Layout:
    return Layout.at(Full(), place, keys=0, **LENGTHS)


def whole(mask: Tensor | None = None, targets: int = 6, states: int = 14) -> Layout:
    return Layout.whole(Full(), targets, states, key_mask=mask, **LENGTHS)


def decode(module, query: Tensor, source: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return outputs and numbers of states read, target by target, with the whole source given first."""
    state, outputs, seen = {}, [], []
    module.feed(source, state, True, mask)
    for i, target in enumerate(query.split(1)):
        output, read, _ = module.advance(target, state, target_at(i))
        outputs.append(output)
        seen.append(read)
    return torch.cat(outputs), torch.stack(seen, dim=-1)


@pytest.mark.parametrize("mass_preservation", [True, False])
@pytest.mark.parametrize("ratio", [1, 3])
@pytest.mark.parametrize("soft", SOFT)
@pytest.mark.parametrize("mechanism", ANYWHERE)
def test_with_p_of_0_and_1_training_is_decoding(mechanism: str, soft: str, ratio: int, mass_preservation: bool) -> None:
    module = attention(mechanism, soft, ratio, mass_preservation=mass_preservation)
    query, source = torch.randn(6, 2, 12, dtype=DOUBLE), torch.randn(14, 2, 10, dtype=DOUBLE)
    mask = torch.arange(14) < torch.tensor([[14], [8]])
    with torch.no_grad():
        expected, delays = module(query, source, whole(mask))
        output, seen = decode(module, query, source, mask)
    assert_close(output, expected, rtol=0, atol=1e-9)
    if mass_preservation:
        assert_close(seen.to(DOUBLE), delays, rtol=0, atol=1e-9)
        assert len(seen[0].unique()) > 1, "heads must move for this test"


@pytest.mark.parametrize("ratio", [1, 3])
@pytest.mark.parametrize("soft", SOFT)
@pytest.mark.parametrize("mechanism", ANYWHERE)
def test_a_source_in_chunks_gives_the_same_as_the_whole_source(mechanism: str, soft: str, ratio: int) -> None:
    """Some attempts to emit a target fail for lack of states, and are undone."""
    module = attention(mechanism, soft, ratio)
    query, source = torch.randn(6, 1, 12, dtype=DOUBLE), torch.randn(14, 1, 10, dtype=DOUBLE)
    with torch.no_grad():
        expected, expected_seen = decode(module, query, source, None)
        state, chunks, done, fed = {}, list(source.split([2, 1, 5, 3, 3])), 0, 0
        for i, chunk in enumerate(chunks):
            module.feed(chunk, state, final=False)
            fed += len(chunk)
            if i == len(chunks) - 1:
                module.feed(None, state, final=True)
            while done < len(query):
                before = fork(state)
                output, seen, wants = module.advance(query[done : done + 1], state, target_at(done))
                if wants.any() and not state[module.name]["over"].all():
                    state = before
                    break
                assert int(seen.max()) <= fed
                assert_close(output[0], expected[done], rtol=0, atol=1e-9)
                assert seen.tolist() == expected_seen[..., done].tolist()
                done += 1
    assert done == len(query)


def test_infinite_lookback_drops_states_that_every_head_has_read() -> None:
    """With a linear mechanism, these states are a sum of constant size."""
    module = attention("relu", "infinite_lookback", 1)
    state, sizes = {}, []
    with torch.no_grad():
        module.feed(torch.randn(50, 1, 10, dtype=DOUBLE), state, final=False)
        for place in range(30):
            module.advance(torch.randn(1, 1, 12, dtype=DOUBLE), state, target_at(place))
            own = state[module.name]
            slowest = int(own["seen"].min())
            assert own["key"].shape[2] == 50 - slowest
            sizes.append(own["mechanism.memory"].nbytes)
    assert len(set(sizes)) == 1
    assert slowest > 10, "heads must move for this test"


@pytest.mark.parametrize("mechanism", ["relu", "cosformer", "softmax"])
def test_hypotheses_can_be_reordered(mechanism: str) -> None:
    module = attention(mechanism, "infinite_lookback", 3)
    query, source = torch.randn(6, 2, 12, dtype=DOUBLE), torch.randn(14, 2, 10, dtype=DOUBLE)
    with torch.no_grad():
        expected, _ = decode(module, query, source, None)
        state, order = {}, torch.tensor([1, 0])
        module.feed(source, state, True)
        module.advance(query[:1], state, target_at(0))
        reorder(state, order)
        output, _, _ = module.advance(query[1:2, order], state, target_at(1))
    assert_close(output, expected[1:2, order], rtol=0, atol=1e-9)


def test_noise_is_added_in_training_only() -> None:
    module = attention("relu", "infinite_lookback", 1)
    with torch.no_grad():
        module.q_proj_mono.weight /= 1e8
        module.energy_bias.fill_(0.0)
    query, source = torch.randn(4, 1, 12, dtype=DOUBLE), torch.randn(6, 1, 10, dtype=DOUBLE)
    assert torch.equal(module(query, source)[1], module(query, source)[1])
    module.train()
    assert not torch.equal(module(query, source)[1], module(query, source)[1])


@pytest.mark.parametrize("soft", SOFT)
@pytest.mark.parametrize("mechanism", ANYWHERE)
def test_every_parameter_learns(mechanism: str, soft: str) -> None:
    torch.manual_seed(1)
    rule = Monotonic(soft, ratio=2, energy_bias=True)
    module = MonotonicMultiheadAttention(12, 3, build_attention(mechanism, 4), kdim=10, monotonic=rule)
    output, delays = module(torch.randn(5, 2, 12), torch.randn(9, 2, 10), whole(None, 5, 9))
    (output.square().sum() + delays.sum()).backward()
    idle = {"q_proj", "k_proj", "mechanism"} if soft == "hard_aligned" else set()
    for name, parameter in module.named_parameters():
        moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert moved == (name.split(".")[0] not in idle), name
