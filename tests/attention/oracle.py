"""The slow reference: each mechanism's weights as its paper defines them, and visibility case by case.

Nothing here shares code with ``mla_fairseq.attention``: only the parameters of views are used. A new mechanism is
tested as soon as it is registered; add its formula here, under its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mla_fairseq.attention import Blocks, Causal, Full, Mechanism, Prefix, View
from tests.attention.cases import Problem

EPS = 1e-6
"""The smallest normalizer: below it, a query has seen nothing."""

Formula = Callable[[Mechanism, Problem], Tensor]
"""(mechanism, problem) -> weights before normalization (B, H, T, S)."""


def softmax(mechanism: Mechanism, x: Problem) -> Tensor:
    return (_dot(x.q, x.k) / math.sqrt(x.q.shape[-1])).exp()


def relu(mechanism: Mechanism, x: Problem) -> Tensor:
    return _dot(_positive(x.q), _positive(x.k))


def relu2(mechanism: Mechanism, x: Problem) -> Tensor:
    return _dot(_positive(x.q) ** 2, _positive(x.k) ** 2)


def elu(mechanism: Mechanism, x: Problem) -> Tensor:
    return _dot(_elu_plus_one(x.q), _elu_plus_one(x.k))


def exp(mechanism: Mechanism, x: Problem) -> Tensor:
    q, k = x.q.exp(), x.k.exp()
    return _dot(q, k) / q.sum(-1)[..., :, None] / k.sum(-1)[..., None, :]


def cosformer(mechanism: Mechanism, x: Problem) -> Tensor:
    return relu(mechanism, x) * (math.pi / 2 * _distance(x)).cos()


def quadratic_distance(mechanism: Mechanism, x: Problem) -> Tensor:
    return relu(mechanism, x) * (1 - _distance(x) ** 2)


def hedgehog(mechanism: Mechanism, x: Problem) -> Tensor:
    q, k = mechanism.query_map(x.q), mechanism.key_map(x.k)
    both = [torch.cat((y.exp(), (-y).exp()), dim=-1) for y in (q, k)]
    return _dot(*(y / y.sum(-1, keepdim=True) for y in both))


def leap(mechanism: Mechanism, x: Problem) -> Tensor:
    q = _proportion(mechanism.query_proportion, _positive(x.q))
    k = _proportion(mechanism.key_proportion, _positive(x.k))
    return relu(mechanism, x) * (math.pi / 2 * (q[..., :, None] - k[..., None, :])).cos()


def _proportion(module: torch.nn.Module, x: Tensor) -> Tensor:
    """Return 1 / (1 + e^-(W2 max(W1 x + b1, 0) + b2)), from the module's matrices."""
    hidden = (x @ module.hidden.weight.T + module.hidden.bias).clamp_min(0)
    return 1 / (1 + (-(hidden @ module.output.weight.T + module.output.bias)).exp())[..., 0]


def performer(mechanism: Mechanism, x: Problem) -> Tensor:
    """Return weights of the reference's features, with the constant 4 d^(1/4) for the maximum over all keys.

    A common factor of all features of keys cancels: e^40 keeps them far above the smallest normalizer.
    """
    root = x.q.shape[-1] ** 0.25
    projected = [y / root @ mechanism.directions.to(y).T for y in (x.q, x.k)]
    q, k = (w - (y / root).square().sum(-1, keepdim=True) / 2 for w, y in zip(projected, (x.q, x.k), strict=True))
    largest = projected[0].amax(-1, keepdim=True).detach()
    return _dot((q - largest).exp() + 1e-4, ((k - 4 * root).exp() + 1e-4) * math.exp(40))


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


def decay(mechanism: Mechanism, k: Tensor) -> Tensor:
    """Return the logarithm of 1 - 2^-(5 + h) for head h."""
    rates = [math.log(1 - 2 ** -(5 + head)) for head in range(k.shape[1])]
    return torch.tensor(rates, dtype=k.dtype)[:, None, None].expand_as(k)


def gla(mechanism: Mechanism, k: Tensor) -> Tensor:
    gates = (k @ mechanism.projection.weight.T + mechanism.projection.bias).sigmoid() ** (1 / 16)
    return gates.log().clamp_min(-2.0)


DECAYING: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Mechanism, Tensor], Tensor]]] = {
    "decay": (lambda x: _positive(x), decay),
    "gla": (lambda x: _elu_plus_one(x), gla),
}
"""Features, and the logarithm of the gates (B, H, S, F), of mechanisms whose state decays with every key."""


def decayed(name: str, mechanism: Mechanism, x: Problem) -> Tensor:
    """Return weights that decay with every later key up to the last one that the query sees."""
    features, gates = DECAYING[name]
    logs = gates(mechanism, x.k)
    if x.key_mask is not None:
        logs = logs * x.key_mask[:, None, :, None]
    seen = visibility(x.view, x.q.shape[-2], x.k.shape[-2])[0, 0]
    later = torch.ones(x.k.shape[-2], x.k.shape[-2]).triu(1)  # (s, u): key u comes after key s
    decay = torch.einsum("tu,su,bhuf->bhtsf", seen.to(logs), later.to(logs), logs).exp()
    return torch.einsum("bhtf,bhsf,bhtsf->bhts", features(x.q), features(x.k), decay)


def attend(name: str, mechanism: Mechanism, x: Problem) -> tuple[Tensor, Tensor]:
    """Return output (B, H, T, D) and normalized weights (B, H, T, S) of the mechanism ``name``."""
    scores = decayed(name, mechanism, x) if name in DECAYING else FORMULAS[name](mechanism, x)
    scores = scores * visibility(x.view, x.q.shape[-2], x.k.shape[-2])
    if x.key_mask is not None:
        scores = scores * x.key_mask[:, None, None, :]
    weights = scores / scores.sum(-1, keepdim=True).clamp_min(EPS)
    return weights @ x.v, weights


def visibility(view: View, queries: int, keys: int) -> Tensor:
    """Return which query sees which key, (B or 1, 1, T, S), boolean."""
    schedules = view.lengths.tolist() if isinstance(view, Prefix) and view.lengths.dim() == 2 else [None]
    mask = torch.zeros(len(schedules), 1, queries, keys, dtype=torch.bool)
    for stream, schedule in enumerate(schedules):
        for t in range(queries):
            first, stop = _seen(view, t, keys, schedule)
            mask[stream, 0, t, max(first, 0) : stop] = True
    return mask


def _seen(view: View, t: int, keys: int, schedule: list[int] | None) -> tuple[int, int]:
    """Return the first key that query ``t`` sees, and the first after these; all counted from 0."""
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
    raise TypeError(f"write down which query sees which key under {view}")


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("bhtd,bhsd->bhts", a, b)


def _positive(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.0)


def _elu_plus_one(x: Tensor) -> Tensor:
    """Return x + 1 above zero and exp(x) below."""
    return torch.where(x > 0, x + 1, x.exp())


def _distance(x: Problem) -> Tensor:
    """Return i / L_q - j / L_k, (B, 1, T, S), with positions from 1, at most the expected length."""
    queries, keys = _places(x.q, x.query_length), _places(x.k, x.key_length)
    return (queries[:, :, None] - keys[:, None, :]).unsqueeze(1)


def _places(x: Tensor, length: Tensor) -> Tensor:
    rows = [[min(i / int(total), 1.0) for i in range(1, x.shape[-2] + 1)] for total in length]
    return torch.tensor(rows, dtype=x.dtype).reshape(len(rows), x.shape[-2])
