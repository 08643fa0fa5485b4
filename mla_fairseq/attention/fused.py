"""Linear attention as autograd functions whose gradients are written by hand: the inner loops of ``kernels.py``.

Left to itself, autograd keeps every intermediate and walks over memory once per operation on the way back. Here masks
are multiplied in place, products add up in place, and the normaliser is summed apart from the values (65 columns
multiply slower than 64). With W the unnormalised weights of the keys at hand, and for each position feature m what is
summed of the keys before them, A_m and z_m (``'`` is transposition)::

    W = (q k') * factor                    A_m = sum k' (pk_m v)      z_m = sum k' pk_m       over keys
    num = W v + sum_m pq_m q A_m           norm = W 1 + sum_m pq_m q z_m                      output = num / norm

and back, with h = gradient / norm and c = -h . output for each query::

    dW = (h v' + c) * factor               dA_m = sum q' (pq_m h)     dz_m = sum q' (pq_m c)  over queries
    dq = dW k + sum_m pq_m (h A_m' + c z_m')
    dk = dW' q + sum_m pk_m (v dA_m' + dz_m')                         dv = W' h + sum_m pk_m k dA_m

``Pairs`` has W alone, ``Summary`` A and z alone, ``Chunks`` both. Shapes are those of ``kernels.py``, with batch and
heads in front; inside, tensors are (G, rows, columns), where G counts batch, heads and chunks, A is ``sums``
(G, F, D) and z is ``norms`` (G, 1, F). Factors and positions get no gradient here. Gradients are of first order:
there is no double backward, and ``torch.func`` cannot look inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from mla_fairseq.attention.precision import full_precision

EPS = 1e-6
"""Smallest normaliser: below it a query has seen nothing. The same in every form, or forms would disagree."""

Gradients = tuple[Tensor | None, ...]


class Pairs(Function):
    """The keys at hand. ``factor`` broadcasts to (B, H, T, S); ``None``: 1. Returns (output,)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, factor: Tensor | None) -> tuple[Tensor]:
        ctx.lead = q.shape[:-2]
        q, k, v = _flat(q, k, v)
        scores = _times_factor_(torch.bmm(q, k.mT), factor, ctx.lead)
        output, norm = _divide_(torch.bmm(scores, v), scores.sum(-1, keepdim=True))
        ctx.save_for_backward(q, k, v, factor, scores, output, norm)
        return _unflat(ctx.lead, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        q, k, v, factor, scores, output, norm = ctx.saved_tensors
        with full_precision(gradient):
            h, c = _divide_gradient(gradient, output, norm)
            gradients = _pairs_gradient(h, c, q, k, v, scores, factor, ctx.lead)
        return *_unflat(ctx.lead, *gradients), None


class Summary(Function):
    """Every key by the state that they leave, which every query reads. Returns output and state."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, pq: Tensor | None, pk: Tensor | None, state: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.lead = q.shape[:-2]
        pq, pk = _rows(pq, q), _rows(pk, k)
        q, k, v, state = _flat(q, k, v, state)
        num = norm = None
        seen = []
        for m, (sums, norms) in enumerate(_columns(state, v)):
            own_sums, own_norms = _write(k, v, pk, m)
            seen += [own_sums.add_(sums), own_norms.add_(norms)]
            num, norm = _read(num, norm, q, pq, m, *seen[-2:])
        output, norm = _divide_(num, norm)
        ctx.save_for_backward(q, k, v, pq, pk, output, norm, *seen)
        return _unflat(ctx.lead, output, _join(seen))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, gradient_after: Tensor) -> Gradients:
        q, k, v, pq, pk, output, norm, *seen = ctx.saved_tensors
        dq = dk = dv = None
        before = []
        with full_precision(gradient):
            h, c = _divide_gradient(gradient, output, norm)
            for m, (sums, norms) in enumerate(_columns(*_flat(gradient_after), v)):
                dq, own_sums, own_norms = _read_gradient(dq, h, c, q, pq, m, *seen[2 * m : 2 * m + 2])
                before += [own_sums.add_(sums), own_norms.add_(norms)]
                dk, dv = _write_gradient(dk, dv, k, v, pk, m, *before[-2:])
        dq, dk, dv, dstate = _unflat(ctx.lead, dq, dk, dv, _join(before))
        return dq, dk, dv, None, None, dstate


class Chunks(Function):
    """Self-attention: the keys of the own chunk of C positions, and a running state of the N chunks before.

    ``factor`` broadcasts to (B, H, N, C, C), positions to (B, H, N, C, M). Returns output and state. Keeps C + M D
    numbers per position, beside input and output, for the way back.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        factor: Tensor | None,
        pq: Tensor | None,
        pk: Tensor | None,
        state: Tensor,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.length, (q, k, v) = q.shape[-2], (cut(x, chunk) for x in (q, k, v))
        ctx.lead = q.shape[:-2]
        pq, pk = _rows(pq, q), _rows(pk, k)
        q, k, v = _flat(q, k, v)
        scores = _times_factor_(torch.bmm(q, k.mT), factor, ctx.lead)
        num, norm = torch.bmm(scores, v), scores.sum(-1, keepdim=True)
        running, after = [], []
        for m, (sums, norms) in enumerate(_columns(state, v)):
            own_sums, own_norms = _write(k, v, pk, m)
            sums, last_sums = _run_(own_sums, sums, ctx.lead)
            norms, last_norms = _run_(own_norms, norms, ctx.lead)
            num, norm = _read(num, norm, q, pq, m, sums, norms)
            running += [sums, norms]
            after += [last_sums, last_norms]
        output, norm = _divide_(num, norm)
        ctx.save_for_backward(q, k, v, factor, pq, pk, scores, output, norm, *running)
        return *_uncut(ctx, output), _join(after)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, gradient_after: Tensor) -> Gradients:
        q, k, v, factor, pq, pk, scores, output, norm, *running = ctx.saved_tensors
        before = []
        with full_precision(gradient):
            h, c = _divide_gradient(cut(gradient, q.shape[-2]), output, norm)
            dq, dk, dv = _pairs_gradient(h, c, q, k, v, scores, factor, ctx.lead)
            for m, (sums, norms) in enumerate(_columns(gradient_after, v)):
                dq, own_sums, own_norms = _read_gradient(dq, h, c, q, pq, m, *running[2 * m : 2 * m + 2])
                sums, first_sums = _run_(own_sums, sums, ctx.lead, step=-1)
                norms, first_norms = _run_(own_norms, norms, ctx.lead, step=-1)
                dk, dv = _write_gradient(dk, dv, k, v, pk, m, sums, norms)
                before += [first_sums, first_norms]
        return *_uncut(ctx, dq, dk, dv), None, None, None, _join(before), None


def cut(x: Tensor, chunk: int) -> Tensor:
    """(.., T, X) -> (.., N, chunk, X), with zero rows at the end: zero features add nothing to any sum."""
    if missing := -x.shape[-2] % chunk:
        x = F.pad(x, (0, 0, 0, missing))
    return x.unflatten(-2, (-1, chunk))


def _uncut(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    """(G, C, X) -> (B, H, T, X)"""
    return tuple(x.view(*ctx.lead[:2], -1, x.shape[-1])[:, :, : ctx.length] for x in tensors)


def _pairs_gradient(
    h: Tensor, c: Tensor, q: Tensor, k: Tensor, v: Tensor, scores: Tensor, factor: Tensor | None, lead: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv by way of W."""
    gradient = _times_factor_(torch.bmm(h, v.mT).add_(c), factor, lead)  # baddbmm would first copy c T times
    return torch.bmm(gradient, k), torch.bmm(gradient.mT, q), torch.bmm(scores.mT, h)


def _write(k: Tensor, v: Tensor, pk: Tensor | None, m: int) -> tuple[Tensor, Tensor]:
    """A_m and z_m of these keys alone."""
    k = _times_position(k, pk, m)
    return torch.bmm(k.mT, v), k.sum(1, keepdim=True)


def _write_gradient(
    dk: Tensor | None, dv: Tensor | None, k: Tensor, v: Tensor, pk: Tensor | None, m: int, dsums: Tensor, dnorms: Tensor
) -> tuple[Tensor, Tensor]:
    """dk and dv, their share by way of A_m and z_m added."""
    dk = _plus_product(dk, _times_position(v, pk, m), dsums.mT)
    dk = dk.add_(dnorms) if pk is None else dk.addcmul_(pk[..., m : m + 1], dnorms)
    return dk, _plus_product(dv, _times_position(k, pk, m), dsums)


def _read(
    num: Tensor | None, norm: Tensor | None, q: Tensor, pq: Tensor | None, m: int, sums: Tensor, norms: Tensor
) -> tuple[Tensor, Tensor]:
    """Numerator (G, T, D) and normaliser (G, T, 1), what the queries read of A_m and z_m added."""
    q = _times_position(q, pq, m)
    seen = (q * norms).sum(-1, keepdim=True)
    return _plus_product(num, q, sums), seen if norm is None else norm.add_(seen)


def _read_gradient(
    dq: Tensor | None, h: Tensor, c: Tensor, q: Tensor, pq: Tensor | None, m: int, sums: Tensor, norms: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, its share by way of A_m and z_m added; dA_m and dz_m of these queries alone."""
    h, c = _times_position(h, pq, m), _times_position(c, pq, m)
    dq = _plus_product(dq, h, sums.mT).addcmul_(c, norms)
    return dq, torch.bmm(q.mT, h), (q * c).sum(1, keepdim=True)


def _divide_(num: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """Output (G, T, D), and the normaliser as it was used."""
    norm = norm.clamp_min_(EPS)
    return num.div_(norm), norm


def _divide_gradient(gradient: Tensor, output: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """h (G, T, D), the gradient of the numerator, and c (G, T, 1), of the normaliser: none where it is at its limit."""
    h = gradient.reshape(output.shape) / norm
    c = (h * output).sum(-1, keepdim=True).neg_()
    return h, c.mul_(norm > EPS)


def _run_(own: Tensor, start: Tensor, lead: Sequence[int], step: int = 1) -> tuple[Tensor, Tensor]:
    """What stands before each chunk: ``start`` and what the chunks before have of their own; and all of it.

    With ``step`` -1 from the last chunk to the first. On a CPU, ``torch.cumsum`` takes 20 times as long for matrices:
    it walks across rows.
    """
    own = own.unflatten(0, lead)
    if own.is_cuda or own.shape[-2] == 1:
        sums = torch.cat((start.unsqueeze(2), own if step > 0 else own.flip(2)), dim=2).cumsum(2)
        before = sums[:, :, :-1]
        return (before if step > 0 else before.flip(2)).flatten(0, 2), sums[:, :, -1]
    chunks = (start, *own.unbind(2)[::step])
    for before, chunk in pairwise(chunks):
        chunk.add_(before)
    return torch.stack(chunks[:-1][::step], dim=2).flatten(0, 2), chunks[-1]


def _columns(state: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Views of a state (.., F, M (D + 1)): for each position feature A_m (.., F, D) and z_m (.., 1, F)."""
    parts = state.unflatten(-1, (-1, v.shape[-1] + 1)).unbind(-2)
    return [(part[..., :-1], part[..., -1:].mT) for part in parts]


def _join(columns: Sequence[Tensor]) -> Tensor:
    """The state of [A_0, z_0, A_1, z_1, ..]."""
    return torch.cat([x if i % 2 == 0 else x.mT for i, x in enumerate(columns)], dim=-1)


def _plus_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b) if total is None else total.baddbmm_(a, b)


def _times_position(x: Tensor, positions: Tensor | None, m: int) -> Tensor:
    return x if positions is None else x * positions[..., m : m + 1]


def _times_factor_(scores: Tensor, factor: Tensor | None, lead: Sequence[int]) -> Tensor:
    if factor is not None:
        scores.view(*lead, *scores.shape[1:]).mul_(factor)
    return scores


def _rows(positions: Tensor | None, x: Tensor) -> Tensor | None:
    """Positions broadcasting to the leading dimensions of x -> (G, rows, M)."""
    return None if positions is None else positions.expand(*x.shape[:-1], -1).flatten(0, -3)


def _flat(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.flatten(0, -3) for x in tensors)


def _unflat(lead: Sequence[int], *tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.view(*lead, *x.shape[1:]) for x in tensors)
