"""Kernels of linear attention: plain operations on tensors, shared by every linear mechanism.

All of them compute one formula. With content features ``phi >= 0`` and a small position vector ``psi``::

    weight(t, s) = (phi_q(t) . phi_k(s)) * (psi_q(t) . psi_k(s)) * visible(t, s)
    output(t)    = sum_s weight(t, s) v(s) / sum_s weight(t, s)

The quadratic form computes the weights, as a product of two score matrices (``quadratic``: the oracle, and the fastest
form for short sequences). The linear form uses ``(a . b)(c . d) = (a (x) c) . (b (x) d)``: position and content are
folded into one vector of M F features (``fold``), and all keys into a state of constant size (``write``), which a query
reads by one product (Katharopoulos et al. 2020, arXiv 2006.16236, equations 10 to 12). ``chunked`` and ``prefix`` mix
the two forms: quadratic inside a chunk, a state between chunks.

Shapes (B batch, H heads, T queries, S keys, F features, M position features, D values):

    q (B, H, T, M F)   k (B, H, S, M F)   v (B, H, S, D)   state (B, H, M F, D + 1): numerator, and normalizer

The caller sets the features of padded keys to zero. A query that sees nothing gets zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mla_fairseq.attention.numerics import EPS


def quadratic(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return outputs (B, H, T, D); ``mask`` (.., T, S) multiplies the weights: visibility, and psi_q . psi_k."""
    scores = q @ k.mT
    if mask is not None:
        scores = scores * mask
    return (scores @ v) / scores.sum(-1, keepdim=True).clamp_min(EPS)


def fold(features: Tensor, positions: Tensor | None) -> Tensor:
    """Return phi (x) psi, (B, H, N, M F), from phi (B, H, N, F) and psi (.., N, M); without psi, phi itself."""
    if positions is None:
        return features
    return (positions.unsqueeze(-1) * features.unsqueeze(-2)).flatten(-2)


def write(state: Tensor | None, k: Tensor, v: Tensor) -> Tensor:
    """Return the state after the keys ``k`` with values ``v``; ``state`` itself is not changed."""
    if state is None:
        return k.mT @ with_one(v)
    if k.shape[-2] == 1:  # a decoding step: one pass over the state instead of two
        return torch.addcmul(state, k.mT, with_one(v))
    return state + k.mT @ with_one(v)


def chunked(
    q: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None, size: int = 1, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Attend in order: query t sees the state, all earlier blocks of ``size`` positions, and its own block.

    Linear in T: about ``chunk`` positions (whole blocks) are attended quadratically, and earlier chunks are read from
    the running state. Returns outputs (B, H, T, D) and the state after all keys.
    """
    length, chunk = q.shape[-2], max(size, chunk // size * size)  # no block is cut by a chunk
    q, k, values = (cut(x, chunk) for x in (q, k, with_one(v)))  # (B, H, N, chunk, .)
    before, after = running_sum(state, k.mT @ values)
    scores = q @ k.mT
    if size == 1:
        scores = scores.tril()
    elif size < chunk:  # else a chunk is one block, which sees itself
        block = torch.arange(chunk, device=q.device) // size
        scores = scores * (block.unsqueeze(-1) >= block)
    # numerators and normalizers of both sources are added before the division
    return normalize(scores @ values + q @ before).flatten(2, 3)[:, :, :length], after


def prefix(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, state: Tensor | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Attend to prefixes: query t sees the state and the first ``lengths[b, t]`` of these S keys (wait-k).

    ``lengths`` (B or 1, T) never decrease along T. Queries and keys are merged into one sequence of T + S tokens, in
    which each query comes right after its last key. There the prefix is a causal view, so ``chunked`` does the rest:
    linear in T + S, with no loop over queries. Returns outputs (B, H, T, D) and the state after all keys.
    """
    queries, keys = q.shape[-2], k.shape[-2]
    lengths = lengths.clamp(0, keys)
    q_places = lengths + torch.arange(queries, device=q.device)  # after its keys and all earlier queries
    in_order = torch.arange(keys, device=q.device).repeat(len(lengths), 1)
    k_places = in_order + torch.searchsorted(lengths, in_order, right=True)  # after the queries that do not see it
    q, k, values = (_spread(x, places, queries + keys) for x, places in ((q, q_places), (k, k_places), (v, k_places)))
    output, state = chunked(q, k, values, state, chunk=chunk)
    return output.gather(2, _rows(q_places, output)), state


def running_sum(state: Tensor | None, added: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the state before each chunk (B, H, N, M F, D + 1) and after the last, from what each chunk adds.

    ``kept`` (B or 1, H, N, F or 1, 1) is the fraction of the state that remains after a chunk; ``None``: all of it.
    """
    states = [torch.zeros_like(added[:, :, 0]) if state is None else state]
    shares = (None,) * added.shape[2] if kept is None else kept.unbind(2)
    # not ``cumsum``: along this dimension it is slower on a CPU. Not ``added[:, :, i]``: the gradient of each such
    # selection is a tensor of all chunks, which makes the backward pass quadratic
    for chunk, share in zip(added.unbind(2), shares, strict=True):
        states.append((states[-1] if share is None else share * states[-1]) + chunk)
    return torch.stack(states[:-1], dim=2), states[-1]


def with_one(v: Tensor) -> Tensor:
    """Append a column of ones, so that one product gives numerator and normalizer."""
    return F.pad(v, (0, 1), value=1.0)


def normalize(sums: Tensor) -> Tensor:
    """Return numerator over normalizer, (.., D), from (.., D + 1)."""
    return sums[..., :-1] / sums[..., -1:].clamp_min(EPS)  # a query that sees nothing has 0 / EPS = 0


def cut(x: Tensor, chunk: int) -> Tensor:
    """Cut (.., S, n) into chunks (.., N, chunk, n), with zeros at the end: zero features add nothing to any sum."""
    missing = -x.shape[-2] % chunk
    return (F.pad(x, (0, 0, 0, missing)) if missing else x).unflatten(-2, (-1, chunk))


def _spread(x: Tensor, places: Tensor, length: int) -> Tensor:
    """Put the rows of x (B, H, N, n) at places (B or 1, N) of a sequence of ``length`` rows, zeros elsewhere."""
    return x.new_zeros(*x.shape[:2], length, x.shape[-1]).scatter(2, _rows(places, x), x)


def _rows(places: Tensor, x: Tensor) -> Tensor:
    """Expand places (B or 1, N) to an index of rows (B, H, N, n)."""
    return places[:, None, :, None].expand(*x.shape[:2], -1, x.shape[-1])
