"""Invariant 1: for every mechanism and view, all forms give the same values and gradients.

Forms: quadratic, one call on a fresh state (chunked), step by step, resumed from cuts. The reference is ``oracle.py``.
"""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mla_fairseq.attention import Blocks, Causal, Full, Layout, Prefix, View, linear, reorder
from tests.attention import oracle
from tests.attention.cases import (
    ANYWHERE,
    CHUNK,
    CONSTANT,
    LENGTHS,
    MECHANISMS,
    SITE_IDS,
    SITES,
    Problem,
    assert_all_close,
    assert_close,
    build,
    problem,
    site_problem,
)
from tests.attention.forms import EVERY_WAY, FORMS, advance, differentiate, forms_of, truth

FEW = settings(max_examples=max(4, settings().max_examples // 6))
EVERY_SITE = pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)


@cache
def expected(name: str, view: str, length: int) -> dict[str, Tensor]:
    return differentiate(truth(name), build(name), site_problem(view, length))


def test_every_mechanism_has_its_formula() -> None:
    missing = set(MECHANISMS) - set(oracle.FORMULAS) - set(oracle.DECAYING)
    assert not missing, "add the formula of each new mechanism to tests/attention/oracle.py"


@pytest.mark.parametrize("length", LENGTHS, ids=lambda length: f"T{length}")
@EVERY_WAY
def test_a_form_is_the_oracle(name: str, view: str, form: str, length: int) -> None:
    actual = differentiate(FORMS[form], build(name), site_problem(view, length))
    assert_all_close(actual, expected(name, view, length))


@EVERY_WAY
def test_float32_is_near_the_oracle(name: str, view: str, form: str) -> None:
    x = site_problem(view, LENGTHS[-1])
    actual = differentiate(FORMS[form], build(name, dtype=torch.float32), x.to(torch.float32))
    assert {tensor.dtype for tensor in actual.values()} == {torch.float32}
    assert_all_close(actual, expected(name, view, LENGTHS[-1]), torch.float32)


@pytest.mark.parametrize(("name", "view"), [site for site in SITES if site[0] in CONSTANT])
def test_parallel_beyond_the_quadratic_limit_is_a_first_call(
    name: str, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, mechanism = site_problem(view, LENGTHS[-1]), build(name)
    monkeypatch.setattr(linear, "QUADRATIC_LIMIT", 0)
    assert torch.equal(mechanism.parallel(*x.part()), advance(mechanism, x)[0])


@pytest.mark.parametrize("view", ["full", "causal", "blocks", "prefix"])
def test_the_form_changes_with_the_length(view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short sequences use the quadratic form, long ones the linear form."""
    called = []
    monkeypatch.setattr(linear.kernels, "quadratic", lambda q, k, v, mask: called.append(q.shape[-2]) or v)
    for length in (8, 1000):
        build("relu", 64, chunk=64).parallel(*site_problem(view, length, head_dim=64, values=64).part())
    assert called == [8]


@EVERY_SITE
def test_states_of_all_forms_are_equal(name: str, view: str) -> None:
    x, mechanism = site_problem(view, 2 * CHUNK + 3), build(name)
    first = advance(mechanism, x)[1]
    for form in ("steps", "cuts"):
        assert_all_close(FORMS[form](mechanism, x)[1], first, torch.float64)


@st.composite
def views(draw: st.DrawFn, name: str, queries: int, keys: int) -> View:
    """Return a view with random parameters."""
    size = st.integers(1, queries + 1)
    match name:
        case "full":
            return Full()
        case "causal":
            return Causal()
        case "window":
            return Causal(draw(size))
        case "blocks" | "bigblocks":
            return Blocks(draw(size))
        case "leftblocks":
            return Blocks(draw(size), left=draw(st.integers(0, 3)))
        case "prefix":
            return Prefix(torch.tensor(sorted(draw(st.integers(0, keys + 2)) for _ in range(queries))))
    raise ValueError(f"no strategy for the view {name!r}: add one")


@st.composite
def problems(draw: st.DrawFn, view: str, batch: int | None = None) -> Problem:
    """Return a problem with any sizes, expected lengths, padding (also of whole sequences) and cuts."""
    queries = draw(st.integers(1, 14))
    keys = draw(st.integers(1, 14)) if view in ("full", "prefix") else queries
    sizes = {
        "batch": batch or draw(st.integers(1, 3)),
        "heads": draw(st.integers(1, 2)),
        "head_dim": draw(st.integers(2, 5)),
        "values": draw(st.integers(1, 4)),
    }
    x = problem(draw(views(view, queries, keys)), queries, keys, seed=draw(st.integers(0, 2**31)), **sizes)
    cuts = tuple(sorted(draw(st.sets(st.sampled_from(range(0, queries, x.step)))) - {0}))
    real = draw(st.none() | st.lists(st.integers(0, keys), min_size=sizes["batch"], max_size=sizes["batch"]))
    mask = None if real is None else torch.arange(keys) < torch.tensor(real).unsqueeze(-1)
    return replace(x, key_mask=mask, cuts=cuts)


@EVERY_SITE
@FEW
@given(st.data())
def test_any_shapes_and_cuts(name: str, view: str, data: st.DataObject) -> None:
    x = data.draw(problems(view))
    mechanism = build(name, x.q.shape[-1], chunk=data.draw(st.integers(1, 6), label="chunk"))
    right = differentiate(truth(name), mechanism, x)
    for form in forms_of(name):
        assert_all_close(differentiate(FORMS[form], mechanism, x), right)


@EVERY_SITE
@FEW
@given(st.data())
def test_beams_reorder_in_the_middle(name: str, view: str, data: st.DataObject) -> None:
    """Streams may be dropped or repeated: the result is as if only the chosen streams had been given."""
    x = data.draw(problems(view, batch=3))
    order = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4), label="order")
    middle = x.q.shape[-2] // 2 // x.step * x.step
    seen, total = x.seen_by(middle), x.k.shape[-2]
    mechanism, chosen = build(name, x.q.shape[-1]), x.of_streams(order)
    state = {"site": mechanism.write({}, *x.part(keys=slice(seen))[1:]) if seen else {}}
    reorder(state, torch.tensor(order))
    q, k, v, layout = chosen.part(slice(middle, None), slice(seen, None))
    if seen < total:
        output = mechanism.advance(state["site"], q, k, v, layout)[0]
    else:
        output = mechanism.read(state["site"], q, layout)
    assert_close(output, truth(name)(mechanism, chosen)[0][..., middle:, :])


@pytest.mark.parametrize("name", CONSTANT)
def test_streams_may_be_at_different_positions(name: str) -> None:
    """One of two streams is three tokens ahead: together they give the same as alone."""
    x, mechanism, ahead = problem(Causal(), 12, 12), build(name), (2, 5)
    alone = [x.of_streams([stream]) for stream in (0, 1)]
    begun = [mechanism.advance({}, *one.part(slice(n), slice(n)))[1] for one, n in zip(alone, ahead, strict=True)]
    state = {key: torch.cat([one[key] for one in begun]) for key in begun[0]}
    start, lengths = torch.tensor(ahead), {"query_length": x.query_length, "key_length": x.key_length}
    for size in (1, 3):
        rows = start[:, None, None, None] + torch.arange(size)[None, None, :, None]
        q, k, v = (y.gather(2, rows.expand(*y.shape[:2], size, y.shape[-1])) for y in (x.q, x.k, x.v))
        output, state = mechanism.advance(state, q, k, v, Layout.at(Causal(), start, size, **lengths))
        for stream, one in enumerate(alone):
            place = slice(int(start[stream]), int(start[stream]) + size)
            assert_close(output[stream : stream + 1], truth(name)(mechanism, one)[0][..., place, :])
        start = start + size


def ragged(view: str, real: tuple[int, ...]) -> Problem:
    """Return a problem for that view whose streams have these numbers of real keys."""
    x = site_problem(view, max(real), batch=len(real))
    return replace(x, key_mask=torch.arange(x.k.shape[-2]) < torch.tensor(real).unsqueeze(-1))


def unpadded(x: Problem, stream: int, real: int) -> Problem:
    """Return one stream without its padding; in self-attention its padded queries go too."""
    x = x.of_streams([stream])
    queries = real if x.view.in_order else x.q.shape[-2]
    cuts = tuple(cut for cut in x.cuts if cut < queries)
    q, k, v, _ = x.part(slice(queries), slice(real))
    return replace(x, q=q, k=k, v=v, key_mask=None, cuts=cuts)


@EVERY_WAY
def test_padded_sequences_give_the_same_as_alone(name: str, view: str, form: str) -> None:
    mechanism, x = build(name), ragged(view, (2 * CHUNK + 3, CHUNK, 1))
    together, _ = FORMS[form](mechanism, x)
    for stream, real in enumerate(x.key_mask.sum(-1).tolist()):
        alone = unpadded(x, stream, real)
        assert_close(together[stream : stream + 1, :, : alone.q.shape[-2]], FORMS[form](mechanism, alone)[0])


@pytest.mark.parametrize("form", ["quadratic", "advance"])
@pytest.mark.parametrize("name", ANYWHERE)
def test_each_sequence_may_have_its_own_prefix(name: str, form: str) -> None:
    x = ragged("full", (2 * CHUNK + 3, CHUNK, 1))
    x = replace(x, view=Prefix(torch.stack([torch.arange(x.q.shape[-2]) * speed // 2 for speed in (1, 2, 3)])))
    mechanism, run = build(name), FORMS[form]
    assert_all_close(differentiate(run, mechanism, x), differentiate(truth(name), mechanism, x))
    for stream, real in enumerate(x.key_mask.sum(-1).tolist()):
        assert_close(run(mechanism, x)[0][stream : stream + 1], run(mechanism, unpadded(x, stream, real))[0])
