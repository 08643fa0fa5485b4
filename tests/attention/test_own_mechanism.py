"""A mechanism that is derived from ``Mechanism`` directly works in every module and is checked as all others."""

import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import (
    Causal,
    Full,
    Layout,
    Mechanism,
    Monotonic,
    MonotonicMultiheadAttention,
    MultiheadAttention,
    build_attention,
    register_attention,
    registry,
)
from tests.attention import oracle
from tests.attention.cases import FORWARD, LENGTHS, assert_close, site_problem
from tests.attention.forms import FORMS


class MeanAttention(Mechanism):
    """Every visible key has the same weight; the state is the sum of values and their number."""

    def parallel(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        return self.weights(q, k, layout) @ v

    def advance(self, state: dict, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, dict]:
        scores, visible = self.scores(q, k, layout), layout.visible(q.dtype)
        scores = scores if visible is None else scores * visible
        total, count = state.get("total", 0) + scores @ v, state.get("count", 0) + scores.sum(-1, keepdim=True)
        return total / count.clamp_min(self.eps), self.write(state, k, v, layout)

    def write(self, state: dict, k: Tensor, v: Tensor, layout: Layout) -> dict:
        real = self.scores(k.new_zeros(*k.shape[:2], 1, 0), k, layout)
        return {"total": state.get("total", 0) + real @ v, "count": state.get("count", 0) + real.sum(-1, keepdim=True)}

    def read(self, state: dict, q: Tensor, layout: Layout) -> Tensor:
        if not state:
            raise ValueError("this state is empty: write keys before reading it")
        return (state["total"] / state["count"].clamp_min(self.eps)).expand(-1, -1, q.shape[-2], -1)

    def scores(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        ones, mask = q.new_ones(*q.shape[:-1], k.shape[-2]), layout.key_mask
        if mask is None:
            return ones
        return ones * (mask if mask.dim() == 3 else mask.unsqueeze(1)).unsqueeze(2)


@pytest.mark.parametrize("length", LENGTHS, ids=lambda length: f"T{length}")
@pytest.mark.parametrize("view", sorted(FORWARD | {"full", "prefix"}))
@pytest.mark.parametrize("form", FORMS)
def test_its_forms_agree(form: str, view: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(oracle.FORMULAS, "mean", lambda _, x: x.q.new_ones(*x.q.shape[:-1], x.k.shape[-2]))
    x = site_problem(view, length)
    assert_close(FORMS[form](MeanAttention(4), x)[0], oracle.attend("mean", MeanAttention(4), x)[0])


def test_it_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    register_attention("mean")(MeanAttention)
    assert isinstance(build_attention("mean", 4), MeanAttention)
    attention, x = MultiheadAttention(8, 2, "mean", name="site").double(), torch.randn(9, 2, 8, dtype=torch.float64)
    state: dict = {}
    steps = [attention(x[t : t + 1], x[t : t + 1], Layout.at(Causal(), t), state) for t in range(9)]
    assert_close(torch.cat(steps), attention(x, x, Layout.whole(Causal(), 9)))
    assert state["site"].keys() == {"total", "count"}


@pytest.mark.parametrize("soft", ["hard_aligned", "infinite_lookback", "chunkwise"])
def test_monotonic_heads_can_use_it(soft: str) -> None:
    """With decisions of 0 and 1, the expectation of training equals decoding, from a state of constant size."""
    module = MonotonicMultiheadAttention(8, 2, MeanAttention(4), monotonic=Monotonic(soft, ratio=2)).double().eval()
    torch.nn.init.normal_(module.q_proj_mono.weight, std=1e8)
    query, source = torch.randn(5, 1, 8, dtype=torch.float64), torch.randn(11, 1, 8, dtype=torch.float64)
    state: dict = {}
    module.feed(source, state, final=True)
    steps = [module.advance(query[t : t + 1], state, Layout.at(Full(), t, keys=0))[0] for t in range(5)]
    assert_close(torch.cat(steps), module(query, source)[0])
    assert ("mechanism.total" in state[module.name]) == (soft == "infinite_lookback") == module.remembers


@pytest.mark.parametrize("soft", ["infinite_lookback", "chunkwise"])
def test_a_step_of_monotonic_heads_waits_for_the_device_once(soft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, state, waits = MonotonicMultiheadAttention(8, 2, MeanAttention(4), monotonic=Monotonic(soft)), {}, []
    module.feed(torch.randn(11, 1, 8), state, final=True)
    for name in ("__int__", "__bool__", "tolist", "item"):
        method = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda x, name=name, method=method: waits.append(name) or method(x))
    module.advance(torch.randn(1, 1, 8), state, Layout.at(Full(), 0, keys=0))
    assert waits == ["tolist"]


def test_its_limits_are_checked() -> None:
    x = torch.randn(5, 2, 8)
    with pytest.raises(ValueError, match="cannot follow Causal"):
        MultiheadAttention(8, 2, MeanAttention(4))(x, x, Layout.whole(Causal(window=2), 5))

    class InOrder(MeanAttention):
        in_order = True

    with pytest.raises(ValueError, match="needs tokens in order"):
        MultiheadAttention(8, 2, InOrder(4))(x, x)


def test_a_mechanism_must_define_every_operation() -> None:
    class Half(Mechanism):
        def parallel(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
            return v

    with pytest.raises(TypeError, match=r"abstract.*advance.*read.*scores.*write"):
        Half(4)
