"""The forms that must agree: the whole sequence at once, in chunks, one token at a time; and the oracle."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import Full, Mechanism, linear
from tests.attention import oracle
from tests.attention.cases import GATED, SITES, Problem

Result = tuple[Tensor, dict[str, Tensor] | None]
"""Output (B, H, T, D), and the state after all keys, or ``None`` if the form has no state."""
Form = Callable[[Mechanism, Problem], Result]


def quadratic(mechanism: Mechanism, x: Problem) -> Result:
    """Give the whole sequence at once, as a T x S matrix."""
    with patch.object(linear, "QUADRATIC_LIMIT", math.inf):
        return mechanism.parallel(*x.part()), None


def advance(mechanism: Mechanism, x: Problem) -> Result:
    """Give the whole sequence in one call on a fresh state: the chunked form of mechanisms that have it."""
    return mechanism.advance({}, *x.part())


def steps(mechanism: Mechanism, x: Problem) -> Result:
    """Give one token (one block) at a time; cross-attention writes the new keys, then reads one query."""
    return _walk(mechanism, x, range(x.step, x.q.shape[-2], x.step), apart=not x.view.in_order)


def cuts(mechanism: Mechanism, x: Problem) -> Result:
    """Give some tokens at a time, each call resuming from the state of the one before."""
    return _walk(mechanism, x, x.cuts, apart=False)


FORMS: dict[str, Form] = {form.__name__: form for form in (quadratic, advance, steps, cuts)}


def forms_of(name: str) -> list[str]:
    """Return the forms of a mechanism: gated mechanisms have no quadratic form."""
    return [form for form in FORMS if not (form == "quadratic" and name in GATED)]


EVERY_WAY = pytest.mark.parametrize(
    ("name", "view", "form"),
    [pytest.param(name, view, form, id=f"{name}-{view}-{form}") for name, view in SITES for form in forms_of(name)],
)
"""Every mechanism under every view in every form."""


def differentiate(run: Form, mechanism: Mechanism, x: Problem) -> dict[str, Tensor]:
    """Return the output, and the gradients of q, k, v and of the mechanism's parameters for a fixed direction."""
    leaves = {name: getattr(x, name).clone().requires_grad_() for name in ("q", "k", "v")}
    output, _ = run(mechanism, replace(x, **leaves))
    parameters = dict(mechanism.named_parameters())
    direction = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = [*leaves.values(), *parameters.values()]
    gradients = torch.autograd.grad((output * direction.to(output.dtype)).sum(), wanted, materialize_grads=True)
    named = {f"gradient of {name}": grad for name, grad in zip([*leaves, *parameters], gradients, strict=True)}
    return {"output": output.detach(), **named}


def truth(name: str) -> Form:
    """Return the oracle in the shape of a form."""
    return lambda mechanism, x: (oracle.attend(name, mechanism, x)[0], None)


def _walk(mechanism: Mechanism, x: Problem, places: Sequence[int], apart: bool) -> Result:
    """Go from place to place with the keys that the next queries see, then write the keys that no query sees.

    ``apart``: call ``write`` and ``read`` instead of ``advance``; without new keys, queries only read. Under a full
    view, keys come in chunks too, before the queries.
    """
    total, state, outputs, written = x.k.shape[-2], {}, [], 0
    if isinstance(x.view, Full):
        for start, written in pairwise((0, *(place for place in places if place < total))):
            state = _write(mechanism, state, x, start, written)
    for start, stop in pairwise((0, *places, x.q.shape[-2])):
        until = max(written, x.seen_by(stop))
        q, k, v, layout = x.part(slice(start, stop), slice(written, until))
        new = until > written
        if new and not apart:
            output, state = mechanism.advance(state, q, k, v, layout)
        else:
            state = mechanism.write(state, k, v, layout) if new or not state else state
            output = mechanism.read(state, q, layout)
        outputs.append(output)
        written = until
    if written < total:
        state = _write(mechanism, state, x, written, total)
    return torch.cat(outputs, dim=-2), state


def _write(mechanism: Mechanism, state: dict[str, Tensor], x: Problem, start: int, stop: int) -> dict[str, Tensor]:
    return mechanism.write(state, *x.part(keys=slice(start, stop))[1:])
