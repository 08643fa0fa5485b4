"""Linear attention that forgets: the state decays with every token, at a fixed rate or by a learned gate.

With gates 0 < a(s) <= 1 for each feature, B(s) = log a(1) + .. + log a(s), and e(t) the last position of the block of
query t (t itself under ``Causal``)::

    weight(t, s) = sum_f phi_q(t)_f phi_k(s)_f exp(B(e(t))_f - B(s)_f)        for s <= e(t)

In recurrent form, ``memory = a(s) memory + phi_k(s) v(s)``; queries read it at the end of their block.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.attention.base import Layout, Mechanism, Tensors
from mla_fairseq.attention.feature_maps import elu_plus_one
from mla_fairseq.attention.kernels import cut, normalize, running_sum, with_one
from mla_fairseq.attention.numerics import linear
from mla_fairseq.attention.registry import register_attention

CHUNK = 32
FLOOR = -2.0  # logarithm of the smallest gate: over a chunk its inverse, e^64, still fits into float32


class GatedAttention(Mechanism):
    """A linear mechanism with gates, for sites with tokens in order: decoders, and chunked encoders.

    A subclass defines ``features`` and ``gates``. The state is ``memory`` (B, H, F, D + 1).
    """

    in_order = True
    chunk: int = CHUNK

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return phi (.., F) >= 0 of queries or keys (.., d)."""

    @abstractmethod
    def gates(self, k: Tensor, layout: Layout) -> Tensor:
        """Return log a, (B or 1, H, S or 1, F or 1), from ``FLOOR`` to 0, of keys (B, H, S, d)."""

    def parallel(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        return self.advance({}, q, k, v, layout)[0]

    def advance(self, state: Tensors, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> tuple[Tensor, Tensors]:
        k, gates = self._keys(k, layout)
        output, memory = gated(self.features(q), k, v, gates, state.get("memory"), layout.view.size, self.chunk)
        return output, {"memory": memory}

    def write(self, state: Tensors, k: Tensor, v: Tensor, layout: Layout) -> Tensors:
        k, gates = self._keys(k, layout)
        size = min(self.chunk, k.shape[-2])  # no query reads here, so blocks of any size give the same state
        return {"memory": gated(k[..., :0, :], k, v, gates, state.get("memory"), size)[1]}

    def read(self, state: Tensors, q: Tensor, layout: Layout) -> Tensor:
        if "memory" not in state:
            raise ValueError("this state is empty: write keys before reading it")
        return normalize(self.features(q) @ state["memory"])

    def scores(self, q: Tensor, k: Tensor, layout: Layout) -> Tensor:
        """Return weights (B, H, T, S) before normalization, with decay: T S F numbers, for inspection only."""
        q, (k, gates) = self.features(q), self._keys(k, layout)
        total = gates.expand(*gates.shape[:2], k.shape[-2], -1).cumsum(-2)  # B
        size, first = layout.view.size, layout.keys[:, :1]
        ends = ((layout.queries // size + 1) * size - 1 - first).clamp_max(k.shape[-2] - 1)  # e(t) as an index of keys
        at_end = total.gather(2, ends[:, None, :, None].expand(*total.shape[:2], -1, total.shape[-1]))
        # keys after e(t) are masked later: ``clamp_max`` keeps their exponential from overflowing
        decay = (at_end.unsqueeze(-2) - total.unsqueeze(-3)).clamp_max(0).exp()  # (.., T, S, F)
        return torch.einsum("bhtf,bhsf,bhtsf->bhts", q, k, decay.expand(*q.shape[:3], *k.shape[-2:]))

    def _keys(self, k: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return features and log gates; padding is not seen, and nothing decays at it (log 1 = 0)."""
        return layout.mask_padding(self.features(k)), layout.mask_padding(self.gates(k, layout))


def gated(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, state: Tensor | None = None, size: int = 1, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Attend in order: query t sees the state and the keys up to the end of its block of ``size``, with decay.

    q (B, H, T, F), k (B, H, S, F), v (B, H, S, D), log gates (B or 1, H, S or 1, F or 1). A chunk is attended
    quadratically (gated linear attention, Yang et al. 2023, arXiv 2312.06635, section 4); earlier chunks are read from
    the running state. Returns outputs (B, H, T, D) and the state (B, H, F, D + 1) after all keys.
    """
    length = k.shape[-2]
    if length == 0:  # nothing to add, and nothing decays
        state = k.mT @ with_one(v) if state is None else state
        return normalize(q @ state), state
    if length == 1 == size:  # a decoding step: the key that was just written has not decayed
        state = k.mT * with_one(v) if state is None else torch.addcmul(state * gates.exp().mT, k.mT, with_one(v))
        return normalize(q @ state), state
    chunk = min(chunk, length) if size == 1 else size
    gates = gates.expand(*gates.shape[:2], length, -1)
    earlier = torch.ones(chunk, chunk, dtype=q.dtype, device=q.device).tril()
    total = earlier @ cut(gates, chunk)  # B within each chunk, by a product: ``cumsum`` along rows is slow on a CPU
    q, k, values = (cut(x, chunk) for x in (q, k, with_one(v)))  # (B, H, N, chunk, .)
    if size > 1:  # every query of a block reads the state after the block
        kept = total[..., -1:, :]
        before, after = running_sum(state, (k * (kept - total).exp()).mT @ values, kept.exp().mT)
        # the state after block n is the one before block n + 1
        sums = q @ torch.cat((before[:, :, 1:], after.unsqueeze(2)), dim=2)[:, :, : q.shape[2]]
    else:
        # exp(B(t) - B(s)) as a product of two factors, relative to the start of the chunk. Relative to its middle, a
        # chunk could be twice as long, but then the rounding of an output would depend on later tokens
        shrink = total.exp()
        kept, q, k = shrink[..., -1:, :].mT, q * shrink, k * (-total).exp()
        before, after = running_sum(state, kept * (k.mT @ values), kept)
        sums = (q @ k.mT).tril() @ values + q @ before
    return normalize(sums).flatten(2, 3)[:, :, :length], after


@dataclass(frozen=True)
class DecayOptions:
    """Half-lives: the number of tokens, or encoder states, after which half of a head's state is left."""

    min_half_life: float = field(
        default=0.0,
        metadata={"help": "shortest half-life, in tokens; 0: the paper's rates", "former": ("decay_shortest", 22.0)},
    )
    max_half_life: float = field(
        default=0.0,
        metadata={"help": "longest half-life, in tokens; 0: the paper's rates", "former": ("decay_longest", 2839.0)},
    )


@register_attention("decay", options=DecayOptions)
class Decay(GatedAttention):
    """ReLU features, and a state that decays at a fixed rate for each head (retention, arXiv 2307.08621, equation 8).

    Head h, counted from 0, has the gate 1 - 2^-(5 + h), or a half-life between the two options, spaced geometrically.

    Raises:
        ValueError: half-lives that are out of order, below one token or infinite.
    """

    def __init__(self, head_dim: int, options: DecayOptions = DecayOptions()) -> None:
        super().__init__(head_dim)
        self.shortest, self.longest = options.min_half_life, options.max_half_life
        if (self.shortest, self.longest) != (0, 0) and not 1 <= self.shortest <= self.longest < math.inf:
            raise ValueError(
                "--decay-min-half-life and --decay-max-half-life must be 1 <= min <= max, or both 0, but are "
                f"{self.shortest} and {self.longest}"
            )

    def features(self, x: Tensor) -> Tensor:
        return x.relu()

    def gates(self, k: Tensor, layout: Layout) -> Tensor:
        heads, rates = k.shape[1], (self.shortest, self.longest)
        return layout.once(("decay", rates, heads, k.dtype), lambda: self._rates(heads, k.dtype, k.device))

    def _rates(self, heads: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        if self.longest == 0:
            return torch.log1p(-(2.0 ** -(5 + torch.arange(heads, dtype=dtype, device=device))))[None, :, None, None]
        share = torch.linspace(0, 1, heads, dtype=dtype, device=device)
        half_lives = self.shortest * (self.longest / self.shortest) ** share
        return (-math.log(2) / half_lives)[None, :, None, None]


@dataclass(frozen=True)
class GLAOptions:
    """How strongly gates decay."""

    temperature: float = field(default=16.0, metadata={"help": "T in the gates sigmoid(.)^(1/T); higher forgets less"})


@register_attention("gla", options=GLAOptions)
class GLA(GatedAttention):
    """ELU + 1 features, and a state that decays by learned gates (arXiv 2312.06635, section 4.3).

    a = sigmoid(W k + b)^(1 / temperature), at least e^-2: one gate for each feature, computed from the head's keys with
    parameters that the heads share.

    Raises:
        ValueError: a temperature that is not above 0, or is infinite.
    """

    def __init__(self, head_dim: int, options: GLAOptions = GLAOptions()) -> None:
        super().__init__(head_dim)
        if not (options.temperature > 0 and math.isfinite(options.temperature)):
            raise ValueError(f"--gla-temperature must be above 0 and finite, but is {options.temperature}")
        self.temperature = options.temperature
        self.projection = nn.Linear(head_dim, head_dim)

    def features(self, x: Tensor) -> Tensor:
        return elu_plus_one(x)

    def gates(self, k: Tensor, layout: Layout) -> Tensor:
        return (F.logsigmoid(linear(self.projection, k)) / self.temperature).clamp_min(FLOOR)
