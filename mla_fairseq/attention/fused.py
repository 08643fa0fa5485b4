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
heads in front; inside, tensors are (G, rows, columns), where G counts batch, heads and chunks, all A_m side by side
are ``sums`` (G, F, M D), all z_m ``norms`` (G, M, F): one product serves every position feature. Factors and positions
get no gradient here. Gradients are of first order: there is no double backward, and ``torch.func`` cannot look inside.
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
        sums, norms = (own.add_(before) for own, before in zip(_write(k, v, pk), _columns(state, v), strict=True))
        output, norm = _divide_(*_read(None, None, q, pq, sums, norms))
        ctx.save_for_backward(q, k, v, pq, pk, output, norm, sums, norms)
        return _unflat(ctx.lead, output, _join(sums, norms))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, gradient_after: Tensor) -> Gradients:
        q, k, v, pq, pk, output, norm, sums, norms = ctx.saved_tensors
        with full_precision(gradient):
            h, c = _divide_gradient(gradient, output, norm)
            dq, *own = _read_gradient(None, h, c, q, pq, sums, norms)
            after = _columns(*_flat(gradient_after), v)
            dsums, dnorms = (x.add_(later) for x, later in zip(own, after, strict=True))
            dk, dv = _write_gradient(None, None, k, v, pk, dsums, dnorms)
        dq, dk, dv, dstate = _unflat(ctx.lead, dq, dk, dv, _join(dsums, dnorms))
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
        own = zip(_write(k, v, pk), _columns(state, v), strict=True)
        (sums, last_sums), (norms, last_norms) = (_run(x, start, ctx.lead) for x, start in own)
        output, norm = _divide_(*_read(num, norm, q, pq, sums, norms))
        ctx.save_for_backward(q, k, v, factor, pq, pk, scores, output, norm, sums, norms)
        return *_uncut(ctx, output), _join(last_sums, last_norms)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, gradient_after: Tensor) -> Gradients:
        q, k, v, factor, pq, pk, scores, output, norm, sums, norms = ctx.saved_tensors
        with full_precision(gradient):
            h, c = _divide_gradient(cut(gradient, q.shape[-2]), output, norm)
            dq, dk, dv = _pairs_gradient(h, c, q, k, v, scores, factor, ctx.lead)
            dq, *own = _read_gradient(dq, h, c, q, pq, sums, norms)
            after = zip(own, _columns(gradient_after, v), strict=True)
            (dsums, first_sums), (dnorms, first_norms) = (_run(x, end, ctx.lead, step=-1) for x, end in after)
            dk, dv = _write_gradient(dk, dv, k, v, pk, dsums, dnorms)
        return *_uncut(ctx, dq, dk, dv), None, None, None, _join(first_sums, first_norms), None


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


def _write(k: Tensor, v: Tensor, pk: Tensor | None) -> tuple[Tensor, Tensor]:
    """A and z of these keys alone."""
    norms = k.sum(1, keepdim=True) if pk is None else torch.bmm(pk.mT, k)
    return torch.bmm(k.mT, _spread(v, pk)), norms


def _write_gradient(
    dk: Tensor | None, dv: Tensor | None, k: Tensor, v: Tensor, pk: Tensor | None, dsums: Tensor, dnorms: Tensor
) -> tuple[Tensor, Tensor]:
    """dk and dv, their share by way of A and z added."""
    dk = _plus_product(dk, _spread(v, pk), dsums.mT)
    dk = dk.add_(dnorms) if pk is None else dk.baddbmm_(pk, dnorms)
    return dk, _plus_gathered(dv, k, dsums, pk)


def _read(
    num: Tensor | None, norm: Tensor | None, q: Tensor, pq: Tensor | None, sums: Tensor, norms: Tensor
) -> tuple[Tensor, Tensor]:
    """Numerator (G, T, D) and normaliser (G, T, 1), what the queries read of A and z added."""
    seen = q * norms if pq is None else torch.bmm(q, norms.mT).mul_(pq)
    seen = seen.sum(-1, keepdim=True)
    return _plus_gathered(num, q, sums, pq), seen if norm is None else norm.add_(seen)


def _read_gradient(
    dq: Tensor | None, h: Tensor, c: Tensor, q: Tensor, pq: Tensor | None, sums: Tensor, norms: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, its share by way of A and z added; dA and dz of these queries alone."""
    h, c = _spread(h, pq), _spread(c, pq)
    dq = _plus_product(dq, h, sums.mT).baddbmm_(c, norms)
    return dq, torch.bmm(q.mT, h), torch.bmm(c.mT, q)


def _divide_(num: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """Output (G, T, D), and the normaliser as it was used."""
    norm = norm.clamp_min_(EPS)
    return num.div_(norm), norm


def _divide_gradient(gradient: Tensor, output: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
    """h (G, T, D), the gradient of the numerator, and c (G, T, 1), of the normaliser: none where it is at its limit."""
    h = gradient.reshape(output.shape) / norm
    c = (h * output).sum(-1, keepdim=True).neg_()
    return h, c.mul_(norm > EPS)


def _run(own: Tensor, start: Tensor, lead: Sequence[int], step: int = 1) -> tuple[Tensor, Tensor]:
    """What stands before each chunk: ``start`` and what the chunks before have of their own; and all of it.

    With ``step`` -1 from the last chunk to the first. On a CPU, ``torch.cumsum`` takes four times as long as these
    additions where there is much to add: it walks across rows.
    """
    own = own.unflatten(0, lead)
    if own.is_cuda or own.shape[-2] < 8:
        sums = torch.cat((start.unsqueeze(2), own if step > 0 else own.flip(2)), dim=2).cumsum(2)
        before = sums[:, :, :-1]
        return (before if step > 0 else before.flip(2)).flatten(0, 2), sums[:, :, -1]
    before = torch.empty_like(own)
    places, chunks = before.unbind(2)[::step], own.unbind(2)[::step]
    places[0].copy_(start)
    for chunk, (here, after) in zip(chunks, pairwise(places), strict=False):
        torch.add(here, chunk, out=after)
    return before.flatten(0, 2), places[-1] + chunks[-1]


def _columns(state: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A (.., F, M D) and z (.., M, F) of a state (.., F, M (D + 1))."""
    columns = state.unflatten(-1, (-1, v.shape[-1] + 1))
    return columns[..., :-1].flatten(-2), columns[..., -1].mT


def _join(sums: Tensor, norms: Tensor) -> Tensor:
    """The state that holds A and z."""
    columns = sums.unflatten(-1, (norms.shape[-2], -1))
    return torch.cat((columns, norms.mT.unsqueeze(-1)), dim=-1).flatten(-2)


def _plus_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b) if total is None else total.baddbmm_(a, b)


def _spread(x: Tensor, positions: Tensor | None) -> Tensor:
    """(G, rows, X) -> (G, rows, M X), the rows times each position feature."""
    return x if positions is None else (positions.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)


def _plus_gathered(total: Tensor | None, x: Tensor, sums: Tensor, positions: Tensor | None) -> Tensor:
    """total + sum_m p_m x A_m, (G, rows, D)."""
    if positions is None:
        return _plus_product(total, x, sums)
    parts = torch.bmm(x, sums).chunk(positions.shape[-1], dim=-1)
    for part, position in zip(parts, positions.split(1, dim=-1), strict=True):
        total = part * position if total is None else total.addcmul_(part, position)
    return total


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
