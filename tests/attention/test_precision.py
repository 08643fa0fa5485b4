"""Half precision: states add up in float32 over a whole talk, and outputs are as exact as their dtype allows."""

import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import Causal, Layout, MultiheadAttention, State
from tests.attention.cases import CONSTANT, MECHANISMS, TOLERANCE, assert_close

FRAMES, CHUNK = 20_000, 400
EVERY_MODE = pytest.mark.parametrize("mode", ["autocast", "module"])


def in_chunks(attention: MultiheadAttention, x: Tensor, length: int, size: int) -> tuple[Tensor, State]:
    """Return causal self-attention in chunks of ``size`` frames, and the state after them."""
    state, outputs, expected = {}, [], torch.tensor([length])
    for start in range(0, len(x), size):
        chunk = x[start : start + size]
        layout = Layout.at(Causal(), start, len(chunk), query_length=expected, key_length=expected)
        outputs.append(attention(chunk, chunk, layout, state))
    return torch.cat(outputs), state


@pytest.mark.parametrize("name", CONSTANT)
def test_a_state_adds_up_over_a_talk(name: str) -> None:
    """Bfloat16 sums would stop growing after some hundred frames.

    Values have a mean, so that sums and outputs do not vanish. The reference is computed in float64 from the outputs of
    the bfloat16 projections.
    """
    attention, x = MultiheadAttention(8, 1, name, name="attention").bfloat16(), torch.randn(FRAMES, 1, 8).bfloat16()
    with torch.no_grad():
        attention.v_proj.bias.fill_(0.5)
        attention.out_proj.weight.copy_(torch.eye(8))
        output, state = in_chunks(attention, x, FRAMES, CHUNK)
        q, k, v = (
            proj(x).permute(1, 0, 2).unsqueeze(1).double()
            for proj in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        layout = Layout.whole(Causal(), FRAMES)
        exact, after = attention.mechanism.double().advance({}, q, k, v, layout)
    memory = state["attention"]["memory"]
    assert memory.dtype == torch.float32
    assert float((memory - after["memory"]).abs().max() / after["memory"].abs().max()) < TOLERANCE[torch.float32]
    assert output.dtype == torch.bfloat16
    assert_close(output[-100:, 0], exact[0, 0, -100:])


def in_bfloat16(attention: MultiheadAttention, x: Tensor, mode: str) -> tuple[Tensor, State]:
    if mode == "module":
        return in_chunks(attention.to(torch.bfloat16), x.to(torch.bfloat16), 30, 11)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return in_chunks(attention, x, 30, 11)


@EVERY_MODE
@pytest.mark.parametrize("name", MECHANISMS)
def test_multihead_in_bfloat16(name: str, mode: str) -> None:
    attention, x = MultiheadAttention(16, 2, name, name="attention"), torch.randn(30, 2, 16)
    exact, _ = in_chunks(attention, x, 30, 11)
    output, state = in_bfloat16(attention, x, mode)
    assert output.dtype == torch.bfloat16
    assert_close(output, exact)
    if name in CONSTANT:
        assert state["attention"]["memory"].dtype == torch.float32


@EVERY_MODE
@pytest.mark.parametrize("name", MECHANISMS)
def test_mechanisms_compute_in_float32(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every call of the module, and without autocast, unless the mechanism supports half precision."""
    attention, x, got = MultiheadAttention(16, 2, name), torch.randn(30, 2, 16), set()
    for call in ("parallel", "advance", "read", "weights", "surrogate_weights"):
        original = getattr(attention.mechanism, call)

        def spy(*given: object, original=original) -> object:
            tensors = [x for x in given if isinstance(x, Tensor)]
            got.update((tensor.dtype, torch.is_autocast_enabled("cpu")) for tensor in tensors)
            return original(*given)

        monkeypatch.setattr(attention.mechanism, call, spy)

    layout, state = Layout.whole(Causal(), 30), {}
    if mode == "module":
        attention, x = attention.bfloat16(), x.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mode == "autocast"):
        attention(x, x, layout)
        attention(x, x, layout, state)
        attention(x, None, layout, state)
        for surrogate in (False, True):
            attention.weights(x, x, layout, surrogate)
    half = attention.mechanism.half_precision
    assert got == {(torch.bfloat16 if half else torch.float32, half and mode == "autocast")}
