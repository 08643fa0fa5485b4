"""Layouts: default lengths and positions, what is computed once for all layers, and inference mode."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import (
    Causal,
    CosFormer,
    Full,
    Layout,
    Mechanism,
    positions,
)
from tests.attention.cases import (
    CONSTANT,
    MECHANISMS,
    SITE_IDS,
    SITES,
    VIEWS,
    Problem,
    assert_all_close,
    build,
    problem,
    site_problem,
)
from tests.attention.forms import Result, differentiate

MASK = torch.arange(6) < torch.tensor([[6], [4]])


def lengths(layout: Layout) -> tuple[list[int], list[int]]:
    return layout.query_length.tolist(), layout.key_length.tolist()


def test_a_whole_sequence_has_the_lengths_of_its_real_tokens() -> None:
    assert lengths(Layout.whole(Causal(), 6)) == ([6], [6])
    assert lengths(Layout.whole(Causal(), 6, key_mask=MASK)) == ([6, 4], [6, 4])
    assert lengths(Layout.whole(Full(), 3, 6)) == ([3], [6])
    assert lengths(Layout.whole(Full(), 3, 6, key_mask=MASK)) == ([3], [6, 4])
    given = torch.tensor([9, 8])
    assert lengths(Layout.whole(Full(), 3, 6, query_length=given, key_mask=MASK)) == ([9, 8], [6, 4])
    assert lengths(Layout.whole(Causal(), 6, key_length=given)) == ([9, 8], [9, 8])


def test_positions_count_from_the_start_of_the_stream() -> None:
    assert positions(3, 2).tolist() == [[3, 4]]
    assert positions(torch.tensor([3, 0]), 2).tolist() == [[3, 4], [0, 1]]
    alone = Layout.at(Causal(), 5, 2)
    assert alone.queries.tolist() == alone.keys.tolist() == [[5, 6]]
    across = Layout.at(Full(), torch.tensor([5, 1]), keys=2, key_start=7)
    assert (across.queries.tolist(), across.keys.tolist()) == ([[5], [1]], [[7, 8]])


def test_relative_positions_stop_at_the_expected_length() -> None:
    layout = Layout.whole(Full(), 5, 2, query_length=torch.tensor([2, 4]), key_length=torch.tensor([0]))
    assert layout.relative_queries(torch.float32)[:, 0].tolist() == [[0.5, 1, 1, 1, 1], [0.25, 0.5, 0.75, 1, 1]]
    assert layout.relative_keys(torch.float32)[:, 0].tolist() == [[1, 1]], "a length of 0 counts as 1"


def test_once_computes_once() -> None:
    layout, made = Layout.whole(Causal(), 4), []
    for key in ("a", "b", "a", "b"):
        assert layout.once(key, lambda key=key: made.append(key)) is None
    assert made == ["a", "b"]
    assert layout.visible(torch.float32) is layout.visible(torch.float32)
    assert layout.visible(torch.float64).dtype == torch.float64


class Slower(CosFormer):
    """A variant with positions at a fifth of the speed."""

    def query_positions(self, q: Tensor, layout: Layout) -> Tensor:
        return layout.once("slower queries", lambda: super(Slower, self).query_positions(q, slower(layout)))

    def key_positions(self, k: Tensor, layout: Layout) -> Tensor:
        return super().key_positions(k, slower(layout))


def slower(layout: Layout) -> Layout:
    return Layout(layout.view, layout.queries, layout.keys, 5 * layout.query_length, 5 * layout.key_length)


@pytest.mark.parametrize("view", ["full", "causal", "blocks", "prefix"])
@pytest.mark.parametrize("length", [7, 60])
def test_layers_share_a_layout(view: str, length: int) -> None:
    """Each layer gives the same as with a new layout, whatever layers of other classes have cached in it."""
    x = problem(VIEWS[view](length), length, length)
    layers = [*(build(name) for name in MECHANISMS if name in CONSTANT and not build(name).in_order), build("softmax")]
    layers += [Slower(4), CosFormer(4), Slower(4)]
    shared = x.part()[-1]
    outputs = []
    for layer in layers:
        q, k, v, layout = x.part()
        outputs.append(layer.parallel(q, k, v, layout))
        for form in (layer.parallel, lambda *given, layer=layer: layer.advance({}, *given)[0]):
            assert torch.allclose(form(q, k, v, shared), outputs[-1], rtol=0, atol=1e-12)
    assert not torch.allclose(outputs[-1], outputs[-2]), "the subclass differs from its parent"


def test_layers_share_the_positions_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made, relative = [], Layout.relative_queries
    monkeypatch.setattr(Layout, "relative_queries", lambda self, dtype: made.append(1) or relative(self, dtype))
    x = problem(Causal(), 4, 4)
    for step in (slice(t, t + 1) for t in range(4)):
        q, k, v, layout = x.part(step, step)
        for _ in range(3):
            build("cosformer").advance({}, q, k, v, layout)
    assert len(made) == 4


@pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
def test_a_layout_that_was_made_and_used_in_inference_mode_can_be_trained_with(name: str, view: str) -> None:
    """Autograd cannot save tensors from inference mode: a training step must not use them."""
    x, mechanism = site_problem(view, 20), build(name)
    with torch.inference_mode():
        made = replace(x, key_mask=x.key_mask.clone(), query_length=x.query_length.clone())
        layout = made.part()[-1]
        mechanism.parallel(x.q, x.k, x.v, layout)
        mechanism.weights(x.q, x.k, layout)

    def run(mechanism: Mechanism, x: Problem, layout: Layout | None = None) -> Result:
        layout = layout or x.part()[-1]
        q, k, v = x.q, x.k, x.v
        outputs = [mechanism.parallel(q, k, v, layout), mechanism.advance({}, q, k, v, layout)[0]]
        return torch.cat([*outputs, mechanism.surrogate_weights(q, k, layout)], dim=-1), None

    assert_all_close(differentiate(lambda m, x: run(m, x, layout), mechanism, x), differentiate(run, mechanism, x))


class Learned(CosFormer):
    """A subclass with a parameter: it must not share the mask, although its parent does."""

    def __init__(self, head_dim: int, speed: float = 1.0) -> None:
        super().__init__(head_dim)
        self.speed = torch.nn.Parameter(torch.tensor(speed))

    def query_positions(self, q: Tensor, layout: Layout) -> Tensor:
        return super().query_positions(q, layout) * self.speed


def test_a_subclass_shares_a_mask_only_if_it_sets_fixed_positions() -> None:
    x, layout = torch.rand(1, 2, 6, 4), Layout.whole(Causal(), 6)
    slow, fast = (Learned(4, speed).scores(x, x, layout) for speed in (0.1, 1.0))
    for speed, scores in ((0.1, slow), (1.0, fast)):
        expected = (scores * layout.visible(x.dtype)) @ x / (scores * layout.visible(x.dtype)).sum(-1, keepdim=True)
        torch.testing.assert_close(Learned(4, speed).parallel(x, x, x, layout), expected)
