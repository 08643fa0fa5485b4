"""Law 1: every mechanism, every view: all forms are one function, in values and in gradients.

Forms: quadratic, chunked, one call on a fresh state, step by step, resumed from cuts. The truth is ``oracle.py``.
"""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mla_fairseq.attention import Blocks, Causal, Full, Lengths, Prefix, View, parts, reorder
from tests.attention import oracle
from tests.attention.cases import (
    ANYWHERE,
    CHUNK,
    KEY_VALUE,
    LENGTHS,
    LIMITED,
    MECHANISMS,
    SITE_IDS,
    SITES,
    VIEWS,
    Problem,
    assert_all_close,
    assert_close,
    build,
    problem,
    site_problem,
)
from tests.attention.forms import EVERY_WAY, FORMS, advance, chunked, differentiate, forms_of, quadratic, truth

FEW = settings(max_examples=max(4, settings().max_examples // 5))


@cache
def expected(name: str, view: str, length: int) -> dict[str, Tensor]:
    return differentiate(truth(name), build(name), site_problem(view, length))


def test_every_mechanism_has_its_formula() -> None:
    missing = set(MECHANISMS) - set(oracle.FORMULAS) - set(oracle.FADING)
    assert not missing, "give each new mechanism its formula in tests/attention/oracle.py"


CASES = [
    pytest.param(name, view, length, form, id=f"{name}-{view}-T{length}-{form}")
    for name, view in SITES
    for length in LENGTHS
    for form in forms_of(name)
]


@pytest.mark.parametrize(("name", "view", "length", "form"), CASES)
def test_a_form_is_the_oracle(name: str, view: str, length: int, form: str) -> None:
    actual = differentiate(FORMS[form], build(name), site_problem(view, length))
    assert_all_close(actual, expected(name, view, length))


@pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
@pytest.mark.parametrize("numbers", [1, 700], ids=["a-head-at-a-time", "some-streams-at-a-time"])
def test_work_in_parts_is_the_oracle(name: str, view: str, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As large tensors are worked on, a part after the other."""
    truth_of = expected(name, view, LENGTHS[-1])
    monkeypatch.setattr(parts, "PART", numbers)
    for form in forms_of(name):
        assert_all_close(differentiate(FORMS[form], build(name), site_problem(view, LENGTHS[-1])), truth_of)


@EVERY_WAY
def test_float32_is_near_the_oracle(name: str, view: str, form: str) -> None:
    x = site_problem(view, 4 * CHUNK + 3)
    actual = differentiate(FORMS[form], build(name, dtype=torch.float32), x.to(torch.float32))
    assert {tensor.dtype for tensor in actual.values()} == {torch.float32}
    assert_all_close(actual, expected(name, view, 4 * CHUNK + 3), torch.float32)


@pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
def test_states_of_all_forms_are_equal(name: str, view: str) -> None:
    x, mechanism = site_problem(view, 2 * CHUNK + 3), build(name)
    states = {form: FORMS[form](mechanism, x)[1] for form in ("advance", "steps", "cuts")}
    for form in ("steps", "cuts"):
        assert states[form].keys() == states["advance"].keys()
        for tensor in states["advance"]:
            assert_close(states[form][tensor], states["advance"][tensor], torch.float64, f"{tensor} of {form}")


@st.composite
def views(draw: st.DrawFn, kind: str, queries: int, keys: int) -> View:
    """A view of that kind with parameters of its own."""
    size = st.integers(1, queries + 1)
    match kind:
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
    raise ValueError(f"no strategy for the view {kind!r}: write one")


@st.composite
def problems(draw: st.DrawFn, kind: str, batch: int | None = None) -> Problem:
    """Any sizes, expected lengths, padding (of whole sequences too) and cuts."""
    queries = draw(st.integers(1, 14))
    keys = draw(st.integers(1, 14)) if kind in ("full", "prefix") else queries
    view = draw(views(kind, queries, keys))
    sizes = {
        "batch": batch or draw(st.integers(1, 3)),
        "heads": draw(st.integers(1, 2)),
        "head_dim": draw(st.integers(2, 5)),
        "values": draw(st.integers(1, 4)),
    }
    x = problem(view, queries, keys, seed=draw(st.integers(0, 2**31)), **sizes)
    every = view.size if isinstance(view, Blocks) else 1
    cuts = tuple(sorted(draw(st.sets(st.sampled_from(range(0, queries, every)))) - {0}))
    real = draw(st.none() | st.lists(st.integers(0, keys), min_size=sizes["batch"], max_size=sizes["batch"]))
    mask = None if real is None else torch.arange(keys) < torch.tensor(real).unsqueeze(-1)
    return Problem(x.q, x.k, x.v, view, x.lengths, mask, cuts)


@pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
@FEW
@given(st.data())
def test_any_shapes_and_cuts(name: str, view: str, data: st.DataObject) -> None:
    x = data.draw(problems(view))
    mechanism = build(name, x.q.shape[-1], chunk=data.draw(st.integers(1, 6), label="chunk"))
    right = differentiate(truth(name), mechanism, x)
    for form in forms_of(name):
        assert_all_close(differentiate(FORMS[form], mechanism, x), right)


@EVERY_WAY
def test_padded_sequences_are_as_alone(name: str, view: str, form: str) -> None:
    mechanism, x = build(name), ragged(view, (2 * CHUNK + 3, CHUNK, 1))
    together, _ = FORMS[form](mechanism, x)
    for stream, real in enumerate(x.key_mask.sum(-1).tolist()):
        alone = unpadded(x, stream, real)
        assert_close(together[stream : stream + 1, :, : alone.q.shape[-2]], FORMS[form](mechanism, alone)[0])


@pytest.mark.parametrize("form", [quadratic, chunked, advance], ids=lambda form: form.__name__)
@pytest.mark.parametrize("name", ANYWHERE)
def test_each_sequence_may_have_a_prefix_of_its_own(name: str, form) -> None:
    x = ragged("full", (2 * CHUNK + 3, CHUNK, 1))
    schedules = torch.stack([torch.arange(x.q.shape[-2]) * speed // 2 for speed in (1, 2, 3)])
    x = Problem(x.q, x.k, x.v, Prefix(schedules), x.lengths, x.key_mask)
    mechanism = build(name)
    assert_all_close(differentiate(form, mechanism, x), differentiate(truth(name), mechanism, x))
    for stream, real in enumerate(x.key_mask.sum(-1).tolist()):
        alone = unpadded(x, stream, real)
        assert_close(form(mechanism, x)[0][stream : stream + 1], form(mechanism, alone)[0])


@pytest.mark.parametrize(("name", "view"), SITES, ids=SITE_IDS)
@FEW
@given(st.data())
def test_beams_reorder_in_the_middle(name: str, view: str, data: st.DataObject) -> None:
    """Streams may be dropped or doubled: the rest is as if the survivors' inputs had been given from the start."""
    x = data.draw(problems(view, batch=3))
    order = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4), label="order")
    every = x.view.size if isinstance(x.view, Blocks) else 1
    middle = x.q.shape[-2] // 2 // every * every
    mechanism, chosen = build(name, x.q.shape[-1]), x.of_streams(order)
    state = {"site": begin(mechanism, x, middle)}
    reorder(state, torch.tensor(order))
    output = finish(mechanism, chosen, middle, state["site"])
    assert_close(output, quadratic(mechanism, chosen)[0][..., middle:, :])


def begin(mechanism: torch.nn.Module, x: Problem, middle: int) -> dict[str, Tensor]:
    """The state after the first queries and the keys that they see; a full view sees all of them."""
    seen = seen_by(x, middle)
    mask = None if x.key_mask is None else x.key_mask[:, :seen]
    if isinstance(x.view, Full | Prefix):
        state = mechanism.write({}, x.k[..., :seen, :], x.v[..., :seen, :], mask, x.lengths)
        return mechanism.read(state, x.q[..., :middle, :], x.lengths)[1]
    q, k, v = (tensor[..., :middle, :] for tensor in (x.q, x.k, x.v))
    return mechanism.advance({}, q, k, v, x.view, mask, x.lengths)[1]


def finish(mechanism: torch.nn.Module, x: Problem, middle: int, state: dict[str, Tensor]) -> Tensor:
    """The other outputs, given the lengths again (the state has them already)."""
    seen = seen_by(x, middle)
    q, k, v = x.q[..., middle:, :], x.k[..., seen:, :], x.v[..., seen:, :]
    mask = None if x.key_mask is None else x.key_mask[:, seen:]
    view = Prefix(x.view.lengths[middle:] - seen) if isinstance(x.view, Prefix) else x.view
    return mechanism.advance(state, q, k, v, view, mask, x.lengths)[0]


def seen_by(x: Problem, queries: int) -> int:
    """How many keys the first queries see."""
    if isinstance(x.view, Full):
        return x.k.shape[-2]
    if isinstance(x.view, Prefix):
        return min(int(x.view.lengths[queries - 1]), x.k.shape[-2]) if queries else 0
    return queries


def ragged(view: str, real: tuple[int, ...]) -> Problem:
    """One problem of that view whose streams have so many real keys."""
    x = site_problem(view, max(real), ragged=False, batch=len(real))
    return Problem(
        x.q, x.k, x.v, x.view, x.lengths, torch.arange(x.k.shape[-2]) < torch.tensor(real).unsqueeze(-1), x.cuts
    )


def unpadded(x: Problem, stream: int, real: int) -> Problem:
    """One stream without its padding; in self-attention its padded queries go too."""
    x = x.of_streams([stream])
    queries = x.q.shape[-2] if isinstance(x.view, Full | Prefix) else real
    cuts = tuple(cut for cut in x.cuts if cut < queries)
    return Problem(x.q[..., :queries, :], x.k[..., :real, :], x.v[..., :real, :], x.view, x.lengths, None, cuts)


@pytest.mark.parametrize("view", sorted(LIMITED))
@pytest.mark.parametrize("name", sorted(set(MECHANISMS) - KEY_VALUE))
def test_a_sum_cannot_forget(name: str, view: str) -> None:
    x, mechanism = site_problem(view, 7), build(name)
    for run in (quadratic, chunked, advance):
        with pytest.raises(ValueError, match="a linear mechanism cannot forget"):
            run(mechanism, x)
    with pytest.raises(ValueError, match="use softmax or drop the window"):
        mechanism.weights(x.q, x.k, VIEWS[view](7), x.key_mask, Lengths(x.lengths.query, x.lengths.key))
