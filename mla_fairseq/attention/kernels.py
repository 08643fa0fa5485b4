"""Kernels of linear attention: pure functions on tensors, shared by every linear mechanism.

One formula is behind all of them. With content features ``phi >= 0`` and a small position vector ``psi``::

    weight(t, s) = (phi_q(t) . phi_k(s)) * (psi_q(t) . psi_k(s)) * visible(t, s)
    output(t)    = sum_s weight(t, s) v(s) / sum_s weight(t, s)

Since ``(a . b)(c . d) = (a (x) c) . (b (x) d)``, the weights can be written out as a product of two score matrices
(``attend`` and ``quadratic``) or folded into a state of constant size (``write`` and ``read``; Katharopoulos et al.
2020, arXiv 2006.16236, equations 10 to 12; ``full`` does both). ``blocks``, ``causal`` and ``prefix`` mix the two:
quadratic inside a chunk, a state between chunks. ``attend`` is the oracle: the others are held against it.

Shapes, the same everywhere (B batch, H heads, T queries, S keys, F features, M position features, D values):

    q (B, H, T, F)   k (B, H, S, F)   v (B, H, S, D)   pq (.., T, M), pk (.., S, M), broadcasting to (B, H)
    state (B, H, F, M * (D + 1)): per position feature, D columns for the numerator and one for the normaliser

Positions may be ``None`` (M = 1, psi = 1). Padded keys are the caller's business: their features are zero. A query
that sees nothing gets zeros. Computation, state and division are in float32 for half-precision inputs, also under
autocast: a bfloat16 state stops adding up after some hundred frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mla_fairseq.attention import parts
from mla_fairseq.attention.fused import EPS, Chunks, Pairs, Summary, cut
from mla_fairseq.attention.precision import full_precision, to, work_dtype


def attend(
    q: Tensor, k: Tensor, v: Tensor, pq: Tensor | None = None, pk: Tensor | None = None, visible: Tensor | None = None
) -> Tensor:
    """Quadratic form (B, H, T, D) in plain operations: the oracle.

    ``visible`` is boolean, (.., T, S), broadcasting to (B, H); ``None`` means that every query sees every key. Numbers
    in its place multiply the weights.
    """
    with full_precision(q):
        q, k, values = q.to(work := work_dtype(v)), k.to(work), v.to(work)
        pairs = scores(q, k, pq, pk, visible)
        return (pairs @ values / pairs.sum(-1, keepdim=True).clamp_min(EPS)).to(v.dtype)


def quadratic(
    q: Tensor, k: Tensor, v: Tensor, pq: Tensor | None = None, pk: Tensor | None = None, visible: Tensor | None = None
) -> Tensor:
    """``attend``, faster: the form for few queries or keys."""
    if _learned(pq, pk):
        return quadratic(_fold(q, pq), _fold(k, pk), v, visible=visible)
    with full_precision(q):
        work, numbers = work_dtype(v), q.shape[-2] * k.shape[-2]
        tensors = (to(work, q), to(work, k), to(work, v), _factor(pq, pk, visible, work))
        return to(v.dtype, *parts.apply(Pairs, numbers, *tensors))


def weights(
    q: Tensor, k: Tensor, pq: Tensor | None = None, pk: Tensor | None = None, visible: Tensor | None = None
) -> Tensor:
    """Normalised weights (B, H, T, S) of ``attend``; rows sum to one, or to zero where nothing is seen."""
    with full_precision(q):
        pairs = scores(q.to(work := work_dtype(q)), k.to(work), pq, pk, visible)
        return (pairs / pairs.sum(-1, keepdim=True).clamp_min(EPS)).to(q.dtype)


AWAKE = 1.0
"""Scores of a query that sum to less count as nearly nothing seen; those of a fresh model sum to tens or hundreds."""


def waking_weights(
    q: Tensor, k: Tensor, pq: Tensor | None = None, pk: Tensor | None = None, visible: Tensor | None = None
) -> Tensor:
    """``weights``, with a gradient that raises the scores of a query that sum to less than ``AWAKE``.

    A loss upon weights, as guided attention is, ends where a query shares no feature with any key: nothing is seen
    there, and no gradient leads back (seen in training with ReLU's features, within 200 updates). Features should have
    a gradient at zero. The weights are exact, and so is the gradient of queries whose scores sum to more.
    """
    with full_precision(q):
        pairs = scores(q, k, pq, pk, visible)
        total = pairs.sum(-1, keepdim=True)
        share = pairs / total.clamp_min(AWAKE)
        return (pairs / total.clamp_min(EPS)).detach() + (share - share.detach())


def scores(
    q: Tensor, k: Tensor, pq: Tensor | None = None, pk: Tensor | None = None, visible: Tensor | None = None
) -> Tensor:
    """Unnormalised weights (.., T, S)."""
    products = q @ k.transpose(-1, -2)
    if pq is not None and pk is not None:
        products = products * (pq.to(q.dtype) @ pk.to(q.dtype).transpose(-1, -2))
    return products if visible is None else products * visible


def write(state: Tensor | None, k: Tensor, v: Tensor, pk: Tensor | None = None) -> Tensor:
    """State (B, H, F, M * (D + 1)) after the keys ``k`` with values ``v``; ``state`` itself is not changed."""
    with full_precision(k):
        k, values = k.to(work := work_dtype(v)), _values_and_one(v.to(work), pk)
        k = k.transpose(-1, -2)
        if state is not None and k.shape[-1] == 1:  # a step: the state is read and written once
            return torch.addcmul(state, k, values)
        added = k @ values
        return added if state is None else state + added


def read(state: Tensor, q: Tensor, pq: Tensor | None = None) -> Tensor:
    """Output (B, H, T, D) of any number of queries against one state, in the dtype of ``q``."""
    with full_precision(q):
        return _normalise(_query(q.to(state.dtype), state, pq)).to(q.dtype)


def full(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pq: Tensor | None = None,
    pk: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Every query sees the state and all keys: ``write``, then ``read``. Returns output and state."""
    if _learned(pq, pk):
        output, state = full(_fold(q, pq), _fold(k, pk), v, state=_fold_state(state, pq))
        return output, _unfold_state(state, pq)
    with full_precision(q):
        work = work_dtype(v)
        state = _start(q, v, pq) if state is None else state
        numbers = max(q.shape[-2], k.shape[-2]) * q.shape[-1]
        pq, pk = (_with_heads(x, work) for x in (pq, pk))
        tensors = (to(work, q), to(work, k), to(work, v), pq, pk, state)
        output, state = parts.apply(Summary, numbers, *tensors)
        return to(v.dtype, output), state


def causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pq: Tensor | None = None,
    pk: Tensor | None = None,
    state: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Query t sees the state and the keys 0 .. t. With T = 1 this is the decoding step. Returns output and state."""
    return blocks(q, k, v, pq, pk, state, size=1, chunk=chunk)


def blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pq: Tensor | None = None,
    pk: Tensor | None = None,
    state: Tensor | None = None,
    size: int = 1,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Query t sees the state and every key of its own block of ``size`` positions and of the blocks before it.

    Linear in T: chunks of about ``chunk`` positions (a multiple of ``size``) are attended quadratically, and what
    lies before a chunk is read from the running state. Returns the output (B, H, T, D) and the state after all keys.
    """
    length = q.shape[-2]
    if length != k.shape[-2]:
        raise ValueError(f"self-attention needs as many queries as keys, but has {length} and {k.shape[-2]}")
    if size < 1 or chunk < 1:
        raise ValueError(f"`size` and `chunk` must be at least 1, but are {size} and {chunk}")
    if length <= size:  # one block sees all of itself: nothing to mask, nothing to pad
        state = write(state, k, v, pk)
        return read(state, q, pq).to(v.dtype), state
    if _learned(pq, pk):
        output, state = blocks(_fold(q, pq), _fold(k, pk), v, None, None, _fold_state(state, pq), size, chunk)
        return output, _unfold_state(state, pq)
    chunk = _even_chunk(length, size, chunk)
    with full_precision(q):
        work, state = work_dtype(v), _start(q, v, pq) if state is None else state
        pq, pk = (None if x is None else cut(_with_heads(x, work), chunk) for x in (pq, pk))
        factor = _factor(pq, pk, _block_triangle(chunk, size, q), work)
        tensors = (to(work, q), to(work, k), to(work, v), factor, pq, pk, state)
        output, state = parts.apply(Chunks, length * state.shape[-1], *tensors, chunk)
        return to(v.dtype, output), state


def prefix(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lengths: Tensor,
    pq: Tensor | None = None,
    pk: Tensor | None = None,
    state: Tensor | None = None,
    chunk: int = 64,
) -> tuple[Tensor, Tensor]:
    """Query t sees the state and the first ``lengths[b, t]`` of the S keys given here (wait-k cross-attention).

    ``lengths`` is (B, T) or (1, T), int64, and never falls along T. Linear in T and S: a chunk of queries reads
    what all of them see from the state and attends quadratically to the rest. Returns the output (B, H, T, D) and
    the state after all keys: to go on from it, give each call only the keys up to its last query's length.
    """
    if bool((lengths.diff(dim=-1) < 0).any()):
        raise ValueError("the visible prefix must not shrink from one query to the next")
    total, outputs, written = k.shape[-2], [], 0
    lengths = lengths.clamp(0, total)
    keys = torch.arange(total, device=k.device)
    with full_precision(q):
        work = work_dtype(v)
        for start in range(0, q.shape[-2], chunk):
            part, now = slice(start, start + chunk), lengths[:, start : start + chunk]
            seen_by_all, seen_by_any = int(now.min()), int(now.max())
            if seen_by_all > written:
                state = write(state, *_rows(written, seen_by_all, k, v, pk))
                written = seen_by_all
            k_own, v_own, pk_own = _rows(written, seen_by_any, k, v, pk)
            queries, pq_own = q[..., part, :].to(work), None if pq is None else pq[..., part, :]
            mask = (keys[written:seen_by_any] < now.unsqueeze(-1)).unsqueeze(1)
            sums = scores(queries, k_own.to(work), pq_own, pk_own, mask) @ _values_and_one(v_own.to(work), None)
            outputs.append(_normalise(sums if state is None else sums + _query(queries, state, pq_own)))
        if written < total or state is None:
            state = write(state, *_rows(written, total, k, v, pk))
        nothing = v.new_zeros(*q.shape[:-2], 0, v.shape[-1])
        return torch.cat([nothing, *outputs], dim=-2).to(v.dtype), state


def position_factor(pq: Tensor, pk: Tensor, visible: Tensor | None) -> Tensor:
    """What scores are multiplied by, (.., T, S), all heads alike."""
    positions = pq @ pk.transpose(-1, -2)
    return positions if visible is None else positions * visible


def _factor(pq: Tensor | None, pk: Tensor | None, visible: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """``position_factor`` of what there is."""
    visible = _with_heads(visible, dtype)
    if pq is None or pk is None:
        return visible
    return position_factor(_with_heads(pq, dtype), _with_heads(pk, dtype), visible)


def _with_heads(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """(.., rows, columns) -> (B or 1, H or 1, rows, columns)."""
    if x is None:
        return None
    x = to(dtype, x)
    return x if x.dim() > 3 else x.reshape((1,) * (4 - x.dim()) + x.shape)


def _values_and_one(v: Tensor, pk: Tensor | None) -> Tensor:
    """(.., S, M * (D + 1)): the values with a column of ones, so that one product gives numerator and normaliser."""
    extended = F.pad(v, (0, 1), value=1.0)
    if pk is None:
        return extended
    return (pk.to(v.dtype).unsqueeze(-1) * extended.unsqueeze(-2)).flatten(-2)


def _query(q: Tensor, state: Tensor, pq: Tensor | None) -> Tensor:
    """Numerator and normaliser (.., T, D + 1) of queries against a state."""
    sums = q @ state
    if pq is None:
        return sums
    return (sums.unflatten(-1, (pq.shape[-1], -1)) * pq.to(q.dtype).unsqueeze(-1)).sum(-2)


def _normalise(sums: Tensor) -> Tensor:
    return sums[..., :-1] / sums[..., -1:].clamp_min(EPS)


def _start(q: Tensor, v: Tensor, pq: Tensor | None) -> Tensor:
    """The state of a stream that has seen nothing."""
    columns = (1 if pq is None else pq.shape[-1]) * (v.shape[-1] + 1)
    return q.new_zeros(*q.shape[:2], q.shape[-1], columns, dtype=work_dtype(v))


def _learned(*positions: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in positions)


def _fold(x: Tensor, positions: Tensor) -> Tensor:
    """Features (.., M F) that say position and content: for learned positions, to which ``fused`` gives no gradient."""
    return (positions.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2)


def _fold_state(state: Tensor | None, positions: Tensor) -> Tensor | None:
    """(B, H, F, M (D + 1)) -> (B, H, M F, D + 1)."""
    return None if state is None else state.unflatten(-1, (positions.shape[-1], -1)).transpose(2, 3).flatten(2, 3)


def _unfold_state(state: Tensor, positions: Tensor) -> Tensor:
    """(B, H, M F, D + 1) -> (B, H, F, M (D + 1))."""
    return state.unflatten(2, (positions.shape[-1], -1)).transpose(2, 3).flatten(3)


def _even_chunk(length: int, size: int, chunk: int) -> int:
    """At most ``chunk`` positions, or one block, in whole blocks; chunks are as even as can be, to pad little."""
    blocks, most = -(-length // size), max(1, chunk // size)
    even = -(-blocks // -(-blocks // most))
    if size == 1:  # products of 63 rows are slower than of 64
        even = min(most, -(-even // 8) * 8)
    return even * size


def _block_triangle(length: int, size: int, like: Tensor) -> Tensor | None:
    """(1, 1, 1, length, length): who sees whom inside a chunk; ``None`` where the chunk is a single block."""
    if length <= size:
        return None
    block = torch.arange(length, device=like.device) // size
    return (block.unsqueeze(-1) >= block).to(like.dtype)[None, None, None]


def _rows(start: int, stop: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if x is None else x[..., start:stop, :] for x in tensors)
