"""Half precision: states add up in float32 over a whole talk, and outputs are as near as their dtype can be."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mla_fairseq.attention import Causal, Lengths, MultiheadAttention, nbytes
from tests.attention.cases import (
    KEY_VALUE,
    MECHANISMS,
    TOLERANCE,
    Problem,
    build,
    problem,
    site_problem,
)
from tests.attention.cases import assert_close as close
from tests.attention.forms import EVERY_WAY, FORMS, truth

LINEAR = sorted(set(MECHANISMS) - KEY_VALUE)
FRAMES, PIECE = 20_000, 10


def rounded(x: Problem) -> Problem:
    """In float64, but with numbers that bfloat16 can hold: what differs afterwards is arithmetic, not input."""
    return x.to(torch.bfloat16).to(torch.float64)


@pytest.fixture(scope="module")
def talk() -> Problem:
    x = problem(Causal(), FRAMES, FRAMES, batch=1, heads=1)
    return rounded(replace(x, v=x.v + 0.5, lengths=Lengths(torch.tensor([FRAMES]), torch.tensor([FRAMES]))))


def exactly(name: str, **sizes: int) -> nn.Module:
    """In float64, with parameters that bfloat16 can hold."""
    return build(name, dtype=torch.bfloat16, **sizes).double()


def exact_state(name: str, x: Problem) -> Tensor:
    return exactly(name).write({}, x.k, x.v, None, x.lengths)["memory"]


@pytest.mark.parametrize("name", LINEAR)
def test_a_state_adds_up_over_a_talk(name: str, talk: Problem) -> None:
    mechanism, x, state = build(name, dtype=torch.bfloat16), talk.to(torch.bfloat16), {}
    for start in range(0, FRAMES, PIECE):
        part = slice(start, start + PIECE)
        state = mechanism.write(state, x.k[..., part, :], x.v[..., part, :], None, x.lengths)
    assert state["memory"].dtype == torch.float32
    exact = exact_state(name, talk)
    assert float((state["memory"] - exact).abs().max() / exact.abs().max()) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("name", LINEAR)
def test_a_long_pass_stays_near(name: str, talk: Problem) -> None:
    """The last frames of a chunked pass over the talk, against reading an exact state."""
    output, state = build(name, dtype=torch.bfloat16, chunk=64).advance({}, *halves(talk), Causal(), None, talk.lengths)
    assert output.dtype == torch.bfloat16
    assert state["memory"].dtype == torch.float32
    exact, _ = exactly(name, chunk=64).advance({}, talk.q, talk.k, talk.v, Causal(), None, talk.lengths)
    close(output[..., -100:, :], exact[..., -100:, :])


def halves(x: Problem) -> tuple[Tensor, Tensor, Tensor]:
    x = x.to(torch.bfloat16)
    return x.q, x.k, x.v


@EVERY_WAY
def test_bfloat16_is_near_the_oracle(name: str, view: str, form: str) -> None:
    x = rounded(site_problem(view, 40))
    output, state = FORMS[form](build(name, dtype=torch.bfloat16), x.to(torch.bfloat16))
    assert output.dtype == torch.bfloat16
    close(output, truth(name)(exactly(name), x)[0])
    if state is not None and name not in KEY_VALUE:
        assert state["memory"].dtype == torch.float32


def run(attention: MultiheadAttention, x: Tensor, cut: int) -> tuple[Tensor, dict]:
    """Causal self-attention in two pieces, then one more query that only reads."""
    expected = torch.full((x.shape[1],), len(x))
    state: dict = {}
    lengths = {"query_length": expected, "key_length": expected}
    pieces = [attention(part, part, Causal(), state=state, **lengths) for part in (x[:cut], x[cut:])]
    return torch.cat([*pieces, attention(x[:1], None, state=state, **lengths)]), state


@pytest.mark.parametrize("kind", ["autocast", "module"])
@pytest.mark.parametrize("name", MECHANISMS)
def test_multihead_in_bfloat16(name: str, kind: str) -> None:
    attention, x = MultiheadAttention(16, 2, name), torch.randn(30, 2, 16)
    exact, _ = run(attention, x, 11)
    if kind == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output, state = run(attention, x, 11)
    else:
        output, state = run(attention.to(torch.bfloat16), x.to(torch.bfloat16), 11)
    assert output.dtype == torch.bfloat16
    close(output, exact)
    sums = [tensor for key, tensor in state["attention"].items() if key == "memory"]
    assert all(tensor.dtype == torch.float32 for tensor in sums)
    assert len(sums) == (name not in KEY_VALUE)
    assert nbytes(state) > 0


@pytest.mark.parametrize("name", LINEAR)
def test_lengths_are_counted_in_whole_tokens(name: str) -> None:
    """bfloat16 cannot hold 301: lengths that nobody gave are counted, not computed in the dtype of the queries."""
    x = problem(Causal(), 301, 301, batch=1)
    x = rounded(replace(x, lengths=Lengths(torch.tensor([301]), torch.tensor([301]))))
    mechanism = build(name, dtype=torch.bfloat16)
    given = mechanism.parallel(*halves(x), Causal(), None, x.lengths)
    assert torch.equal(mechanism.parallel(*halves(x), Causal()), given)
