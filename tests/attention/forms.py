"""The forms that must agree: the whole sequence at once, in pieces, one token at a time; and the oracle as one more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from mla_fairseq.attention import Blocks, Full, Prefix, linear
from tests.attention import oracle
from tests.attention.cases import KEY_VALUE, SITES, Problem

Result = tuple[Tensor, dict[str, Tensor] | None]
"""Output (B, H, T, D), and the state after every key where the form has one."""


def quadratic(mechanism: nn.Module, x: Problem) -> Result:
    """The whole sequence at once, written out as a T x S matrix."""
    with patch.object(linear, "QUADRATIC_LIMIT", math.inf):
        return mechanism.parallel(x.q, x.k, x.v, x.view, x.key_mask, x.lengths), None


def chunked(mechanism: nn.Module, x: Problem) -> Result:
    """The whole sequence at once, in the form whose cost is linear in its length."""
    with patch.object(linear, "QUADRATIC_LIMIT", 0):
        return mechanism.parallel(x.q, x.k, x.v, x.view, x.key_mask, x.lengths), None


def advance(mechanism: nn.Module, x: Problem) -> Result:
    """The whole sequence as the first call on a fresh state."""
    return mechanism.advance({}, x.q, x.k, x.v, x.view, x.key_mask, x.lengths)


def steps(mechanism: nn.Module, x: Problem) -> Result:
    """One token (one block) at a time; cross-attention writes the new keys, then reads one query."""
    size = x.view.size if isinstance(x.view, Blocks) else 1
    every = range(size, x.q.shape[-2], size)
    return (_write_and_read if isinstance(x.view, Full | Prefix) else _resume)(mechanism, x, every)


def cuts(mechanism: nn.Module, x: Problem) -> Result:
    """Some tokens at a time, each call going on from the state of the one before."""
    return (_write_and_read if isinstance(x.view, Full) else _resume)(mechanism, x, x.cuts)


FORMS: dict[str, Callable[[nn.Module, Problem], Result]] = {
    form.__name__: form for form in (quadratic, chunked, advance, steps, cuts)
}


def forms_of(name: str) -> list[str]:
    """Softmax has one parallel form: the linear mechanisms have two."""
    return [form for form in FORMS if not (form == "chunked" and name in KEY_VALUE)]


EVERY_WAY = pytest.mark.parametrize(
    ("name", "view", "form"),
    [
        pytest.param(name, view, form, id=f"{name}-{view}-{form}")
        for name, view in SITES
        for form in (("advance" if name in KEY_VALUE else "chunked"), "quadratic", "steps", "cuts")
    ],
)
"""Every mechanism under every view in every form; a first call is the linear mechanisms' chunked form."""


def differentiate(run: Callable[[nn.Module, Problem], Result], mechanism: nn.Module, x: Problem) -> dict[str, Tensor]:
    """The output, and the gradients of q, k, v and of the mechanism's parameters for a fixed direction."""
    leaves = {name: getattr(x, name).clone().requires_grad_() for name in ("q", "k", "v")}
    output, _ = run(mechanism, replace(x, **leaves))
    parameters = dict(mechanism.named_parameters())
    direction = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = [*leaves.values(), *parameters.values()]
    gradients = torch.autograd.grad((output * direction.to(output.dtype)).sum(), wanted, materialize_grads=True)
    named = {f"gradient of {name}": grad for name, grad in zip([*leaves, *parameters], gradients, strict=True)}
    return {"output": output.detach(), **named}


def truth(name: str) -> Callable[[nn.Module, Problem], Result]:
    """The oracle in the shape of a form."""

    def run(mechanism: nn.Module, x: Problem) -> Result:
        return oracle.attend(name, mechanism, x.q, x.k, x.v, x.view, x.key_mask, x.lengths)[0], None

    return run


def _resume(mechanism: nn.Module, x: Problem, places: Sequence[int]) -> Result:
    """``advance`` from cut to cut, with the keys that are new to each piece; then the keys that nobody sees."""
    state, outputs, written = {}, [], 0
    for start, stop in pairwise((0, *places, x.q.shape[-2])):
        view, until = x.view, stop
        if isinstance(view, Prefix):
            until = max(written, min(int(view.lengths[stop - 1]), x.k.shape[-2]))
            view = Prefix(view.lengths[start:stop] - written)
        k, v, mask = _keys(x, written, until)
        output, state = mechanism.advance(state, x.q[..., start:stop, :], k, v, view, mask, x.lengths)
        outputs.append(output)
        written = until
    k, v, mask = _keys(x, written, x.k.shape[-2])
    if k.shape[-2]:
        state = mechanism.write(state, k, v, mask, x.lengths)
    return torch.cat(outputs, dim=-2), state


def _write_and_read(mechanism: nn.Module, x: Problem, places: Sequence[int]) -> Result:
    """``write`` the keys that the next queries see, in pieces, and ``read`` those queries."""
    total = x.k.shape[-2]
    state, outputs, written = {}, [], 0
    if isinstance(x.view, Full):
        for start, stop in pairwise((0, *(cut for cut in places if cut < total), total)):
            state, written = mechanism.write(state, *_keys(x, start, stop), x.lengths), stop
    for start, stop in pairwise((0, *places, x.q.shape[-2])):
        if isinstance(x.view, Prefix):
            until = max(written, min(int(x.view.lengths[stop - 1]), total))
            state, written = mechanism.write(state, *_keys(x, written, until), x.lengths), until
        output, state = mechanism.read(state, x.q[..., start:stop, :], x.lengths)
        outputs.append(output)
    if written < total:
        state = mechanism.write(state, *_keys(x, written, total), x.lengths)
    return torch.cat(outputs, dim=-2), state


def _keys(x: Problem, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor | None]:
    mask = None if x.key_mask is None else x.key_mask[:, start:stop]
    return x.k[..., start:stop, :], x.v[..., start:stop, :], mask
