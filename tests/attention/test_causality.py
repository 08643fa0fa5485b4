"""Outputs depend exactly on the inputs that the view shows, in every form; read from the gradients."""

from dataclasses import replace

import torch
from torch import Tensor

from tests.attention import oracle
from tests.attention.cases import CHUNK, Problem, build, site_problem
from tests.attention.forms import EVERY_WAY, FORMS


def positive(x: Problem) -> Problem:
    """Make queries and keys positive, so that every mechanism gives every visible pair some weight."""
    return replace(x, q=x.q.abs() + 0.1, k=x.k.abs() + 0.1)


def influence(form: str, name: str, x: Problem) -> dict[str, Tensor]:
    """Return, for each input, which of its tokens change which outputs: boolean (B, T, tokens)."""
    leaves = {key: getattr(x, key).clone().requires_grad_() for key in ("q", "k", "v")}
    output, _ = FORMS[form](build(name, chunk=4), replace(x, **leaves))
    rows = [torch.autograd.grad(row.sum(), list(leaves.values()), retain_graph=True) for row in output.unbind(-2)]
    changed = [[grad.abs().amax(dim=(1, 3)) > 0 for grad in row] for row in rows]
    return {key: torch.stack(column, dim=1) for key, column in zip(leaves, zip(*changed, strict=True), strict=True)}


@EVERY_WAY
def test_an_output_depends_on_what_it_sees(name: str, view: str, form: str) -> None:
    x = positive(site_problem(view, 11, heads=1))
    seen = oracle.visibility(x.view, x.q.shape[-2], x.k.shape[-2])[:, 0] & x.key_mask.unsqueeze(1)
    changed = influence(form, name, x)
    assert torch.equal(changed["v"], seen), "every visible value counts, and no other"
    assert not bool((changed["k"] & ~seen).any()), "no output depends on a key that it does not see"
    alone = torch.eye(x.q.shape[-2], dtype=torch.bool)
    assert not bool((changed["q"] & ~alone).any()), "no output depends on another query"


@EVERY_WAY
def test_outputs_are_bit_equal_if_only_the_future_changes(name: str, view: str, form: str) -> None:
    """Change the keys and values that no query of the first half sees."""
    x, mechanism = site_problem(view, CHUNK + 3), build(name)
    half = x.q.shape[-2] // 2
    unseen = ~oracle.visibility(x.view, x.q.shape[-2], x.k.shape[-2])[0, 0, :half].any(0)
    other = replace(
        x,
        k=torch.where(unseen.unsqueeze(-1), torch.randn_like(x.k), x.k),
        v=torch.where(unseen.unsqueeze(-1), 1000 * torch.randn_like(x.v), x.v),
    )
    before, after = (FORMS[form](mechanism, problem)[0] for problem in (x, other))
    assert torch.equal(before[..., :half, :], after[..., :half, :])
    assert bool(unseen.any()) == (not torch.equal(before, after))
