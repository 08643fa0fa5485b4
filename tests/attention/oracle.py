"""The slow truth: each mechanism's weights as its paper writes them, and who sees whom, spelled out pair by pair.

Nothing here shares code with ``mla_fairseq.attention``: views are only asked for their parameters. A new mechanism
comes under the laws by being registered, and gets its formula here, under its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mla_fairseq.attention import Blocks, Causal, Full, Lengths, Prefix, View

EPS = 1e-6
"""The smallest normaliser of the design: below it a query has seen nothing."""

Formula = Callable[[nn.Module, Tensor, Tensor, Lengths], Tensor]
"""(mechanism, q (B, H, T, d), k (B, H, S, d), lengths) -> weights before normalisation (B, H, T, S)."""


def softmax(mechanism: nn.Module, q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    return (_dot(q, k) / math.sqrt(q.shape[-1])).exp()


def relu(mechanism: nn.Module, q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    return _dot(_positive(q), _positive(k))


def elu(mechanism: nn.Module, q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    """ELU(x) + 1 is x + 1 above zero and exp(x) below."""
    return _dot(torch.where(q > 0, q + 1, q.exp()), torch.where(k > 0, k + 1, k.exp()))


def cosformer(mechanism: nn.Module, q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    return relu(mechanism, q, k, lengths) * (math.pi / 2 * _distance(q, k, lengths)).cos()


def quadratic_distance(mechanism: nn.Module, q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    return relu(mechanism, q, k, lengths) * (1 - _distance(q, k, lengths) ** 2)


def relu2(mechanism: nn.Module, q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    return _dot(_positive(q) ** 2, _positive(k) ** 2)


def exp(mechanism: nn.Module, q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    return _dot(q.exp(), k.exp()) / q.exp().sum(-1)[..., :, None] / k.exp().sum(-1)[..., None, :]


def hedgehog(mechanism: nn.Module, q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    maps = mechanism.features
    q, k = maps.query_map(q), maps.key_map(k)
    both = [torch.cat((x.exp(), (-x).exp()), dim=-1) for x in (q, k)]
    return _dot(*(x / x.sum(-1, keepdim=True) for x in both))


def leap(mechanism: nn.Module, q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    modules = mechanism.positions
    q_place = _proportion(modules.query_proportion, _positive(q))
    k_place = _proportion(modules.key_proportion, _positive(k))
    return relu(mechanism, q, k, lengths) * (math.pi / 2 * (q_place[..., :, None] - k_place[..., None, :])).cos()


def _proportion(module: nn.Module, x: Tensor) -> Tensor:
    """1 / (1 + e^-(W2 max(W1 x + b1, 0) + b2)), from the module's matrices alone."""
    hidden = (x @ module.hidden.weight.to(x).T + module.hidden.bias.to(x)).clamp_min(0)
    return 1 / (1 + (-(hidden @ module.output.weight.to(x).T + module.output.bias.to(x))).exp())[..., 0]


def performer(mechanism: nn.Module, q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    """The constants that the features carry cancel in the normaliser, but for the one that keeps keys visible."""
    directions, root = mechanism.features.directions.double().to(q), q.shape[-1] ** 0.25
    features = [(x / root @ directions.T - (x / root).square().sum(-1, keepdim=True) / 2).exp() for x in (q, k)]
    return _dot(*features)


FORMULAS: dict[str, Formula] = {
    "cosformer": cosformer,
    "elu": elu,
    "exp": exp,
    "hedgehog": hedgehog,
    "leap": leap,
    "performer": performer,
    "relu2": relu2,
    "quadratic_distance": quadratic_distance,
    "relu": relu,
    "softmax": softmax,
}


def decay(mechanism: nn.Module, k: Tensor) -> Tensor:
    heads = k.shape[1]
    places = [head / max(heads - 1, 1) for head in range(heads)]
    rates = [math.log(0.5) / (22.0 ** (1 - place) * 2839.0**place) for place in places]
    return torch.tensor(rates, dtype=k.dtype)[:, None, None].expand_as(k)


def gla(mechanism: nn.Module, k: Tensor) -> Tensor:
    projection = mechanism.gates.projection
    gates = (k @ projection.weight.to(k).T + projection.bias.to(k)).sigmoid() ** (1 / 16)
    return gates.log().clamp_min(-2.0)


FADING: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[nn.Module, Tensor], Tensor]]] = {
    "decay": (lambda x: _positive(x), decay),
    "gla": (lambda x: torch.where(x > 0, x + 1, x.exp()), gla),
}
"""Features, and the logarithm of the gates (B, H, S, F), of mechanisms whose state fades with every key."""


def faded(name: str, mechanism: nn.Module, q: Tensor, k: Tensor, view: View, key_mask: Tensor | None) -> Tensor:
    """Weights of a query upon each key, faded by all keys after it up to the last that the query sees."""
    features, gates = FADING[name]
    logs = gates(mechanism, k)
    if key_mask is not None:
        logs = logs * key_mask[:, None, :, None]
    q, k, scores = features(q), features(k), q.new_zeros(*q.shape[:3], k.shape[2])
    columns = [[scores[:, :, t, s] for s in range(k.shape[2])] for t in range(q.shape[2])]
    for t in range(q.shape[2]):
        stop = min(_seen(view, t, k.shape[2], None)[1], k.shape[2])
        for s in range(stop):
            kept = logs[:, :, s + 1 : stop].sum(2).exp()
            columns[t][s] = (q[:, :, t] * k[:, :, s] * kept).sum(-1)
    return torch.stack([torch.stack(row, dim=-1) for row in columns], dim=-2)


def attend(
    name: str,
    mechanism: nn.Module,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    view: View,
    key_mask: Tensor | None,
    lengths: Lengths,
) -> tuple[Tensor, Tensor]:
    """Output (B, H, T, D) and normalised weights (B, H, T, S) of the mechanism ``name``."""
    if name in FADING:
        scores = faded(name, mechanism, q, k, view, key_mask)
    else:
        scores = FORMULAS[name](mechanism, q, k, lengths)
    scores = scores * visibility(view, q.shape[-2], k.shape[-2])
    if key_mask is not None:
        scores = scores * key_mask[:, None, None, :]
    weights = scores / scores.sum(-1, keepdim=True).clamp_min(EPS)
    return torch.einsum("bhts,bhsd->bhtd", weights, v), weights


def visibility(view: View, queries: int, keys: int) -> Tensor:
    """Who sees whom, (B or 1, 1, T, S) boolean."""
    schedules = view.lengths.tolist() if isinstance(view, Prefix) and view.lengths.dim() == 2 else [None]
    mask = torch.zeros(len(schedules), 1, queries, keys, dtype=torch.bool)
    for stream, schedule in enumerate(schedules):
        for t in range(queries):
            first, stop = _seen(view, t, keys, schedule)
            mask[stream, 0, t, max(first, 0) : stop] = True
    return mask


def _seen(view: View, t: int, keys: int, schedule: list[int] | None) -> tuple[int, int]:
    """Query ``t`` sees the keys from the first number up to, and without, the second; all counted from 0."""
    match view:
        case Full():
            return 0, keys
        case Causal(window=None):
            return 0, t + 1
        case Causal(window=window):
            return t - window + 1, t + 1
        case Blocks(size=size, left=-1):
            return 0, (t // size + 1) * size
        case Blocks(size=size, left=left):
            return (t // size - left) * size, (t // size + 1) * size
        case Prefix(lengths=lengths):
            return 0, int(lengths[t]) if schedule is None else schedule[t]
    raise TypeError(f"write down who sees whom in {view}")


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("bhtd,bhsd->bhts", a, b)


def _positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.0)


def _distance(q: Tensor, k: Tensor, lengths: Lengths) -> Tensor:
    """i / L_q - j / L_k, (B, 1, T, S), positions from 1, each standing still at the end of its expected length."""
    queries, keys = _places(q, lengths.query), _places(k, lengths.key)
    return (queries[:, :, None] - keys[:, None, :]).unsqueeze(1)


def _places(x: Tensor, length: Tensor) -> Tensor:
    rows = [[min(i / int(total), 1.0) for i in range(1, x.shape[-2] + 1)] for total in length]
    return torch.tensor(rows, dtype=x.dtype).reshape(len(rows), x.shape[-2])
