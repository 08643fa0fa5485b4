"""Linear attention that forgets: what a state holds fades with every token, by a fixed rate or by a learned gate.

With gates 0 < a(s) <= 1 for each feature, B(s) = log a(1) + .. + log a(s) and e(t) the last position of the block that
query t stands in (t itself under ``Causal``)::

    weight(t, s) = sum_f phi_q(t)_f phi_k(s)_f exp(B(e(t))_f - B(s)_f)        for s <= e(t)

so that the state of a stream is ``memory = a(s) memory + phi_k(s) v(s)`` and queries read it at the end of their block.
Only views that go forward can be followed: ``Causal`` and ``Blocks``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.attention.features import ELUFeatures, ReLUFeatures
from mla_fairseq.attention.fused import EPS
from mla_fairseq.attention.linear import UNKNOWN, Lengths, Tensors, check_view
from mla_fairseq.attention.precision import full_precision, linear, work_dtype
from mla_fairseq.attention.registry import register_attention
from mla_fairseq.attention.views import Blocks, Causal, View, span

FLOOR = -2.0
"""The strongest gate's logarithm: over a chunk of 32 its inverse, e^64, still fits into float32."""
CHUNK = 32


class GatedAttention(nn.Module):
    """``LinearAttention`` with gates, for sites where tokens come in order: the decoder, and encoders that hear chunks.

    ``gates(k)`` takes keys (B, H, S, d) and returns log a, (B or 1, H, S or 1, F or 1), not above 0. Shapes, methods
    and errors are those of ``LinearAttention``; the state of a stream is ``memory`` (B, H, F, D + 1).
    """

    needs_lengths = False
    in_order = True

    def __init__(self, features: nn.Module, gates: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.gates = gates
        self.chunk = CHUNK

    def parallel(
        self, q: Tensor, k: Tensor, v: Tensor, view: View, key_mask: Tensor | None = None, lengths: Lengths = UNKNOWN
    ) -> Tensor:
        """Outputs (B, H, T, D) of a whole sequence, at a cost that is linear in T.

        Raises:
            ValueError: a view that does not go forward, or that forgets by itself.
        """
        return self.advance({}, q, k, v, view, key_mask, lengths)[0]

    def weights(
        self, q: Tensor, k: Tensor, view: View, key_mask: Tensor | None = None, lengths: Lengths = UNKNOWN
    ) -> Tensor:
        """Normalised weights (B, H, T, S): quadratic and a feature at a time, for inspection."""
        _check(view, q, k)
        q, k, decay = self._project(q, k, key_mask)
        total = decay.cumsum(-2)
        places = span(0, k.shape[-2], k.device)
        size = view.size if isinstance(view, Blocks) else 1
        ends = (places // size * size + size - 1).clamp_max(k.shape[-2] - 1)
        fading = total[..., ends, :].unsqueeze(-2) - total.unsqueeze(-3)  # (B, H, T, S, F)
        scores = torch.einsum("bhtf,bhsf,bhtsf->bhts", q, k, fading.clamp_max(0).exp())
        scores = scores * view.visible(places, places)
        return scores / scores.sum(-1, keepdim=True).clamp_min(EPS)

    def write(
        self, state: Tensors, k: Tensor, v: Tensor, key_mask: Tensor | None = None, lengths: Lengths = UNKNOWN
    ) -> Tensors:
        """The state after these keys and values; ``state`` itself is not changed, ``{}`` is a fresh one."""
        _, k, decay = self._project(k[..., :0, :], k, key_mask)
        with full_precision(k):
            whole = (x.unsqueeze(2) for x in (k, _values_and_one(v), decay.cumsum(-2)))
            return {"memory": _states(state.get("memory"), *whole)[1]}

    def read(self, state: Tensors, q: Tensor, lengths: Lengths = UNKNOWN) -> tuple[Tensor, Tensors]:
        """Outputs (B, H, T, D) of queries against all that was written, and the state as it was.

        Raises:
            ValueError: nothing was written.
        """
        if "memory" not in state:
            raise ValueError("nothing was written to this state: write keys before reading it")
        with full_precision(q):
            return _normalise(self.features(q.to(work_dtype(q))) @ state["memory"]).to(q.dtype), state

    def advance(
        self,
        state: Tensors,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        view: View,
        key_mask: Tensor | None = None,
        lengths: Lengths = UNKNOWN,
    ) -> tuple[Tensor, Tensors]:
        """Outputs (B, H, T, D) of the next T queries given as many new keys, and the state after both.

        ``Blocks`` needs calls that start at a block.
        """
        _check(view, q, k)
        q, k, decay = self._project(q, k, key_mask)
        size = view.size if isinstance(view, Blocks) else 1
        with full_precision(q):
            output, memory = gated(q, k, v, decay, state.get("memory"), size, self.chunk)
        return output, {"memory": memory}

    def _project(self, q: Tensor, k: Tensor, key_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Features and the logarithm of gates, (B, H, S, F): padding is not seen, and nothing fades by it."""
        with full_precision(k):
            q, k = q.to(work_dtype(q)), k.to(work_dtype(k))
            features = self.features(k)
            decay = self.gates(k).expand_as(features)
            if key_mask is not None:
                mask = key_mask[:, None, :, None]
                features, decay = features * mask, decay * mask
            return self.features(q), features, decay


def gated(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, state: Tensor | None = None, size: int = 1, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Query t sees the keys up to the end of its block of ``size``, faded up to there; the state comes before all.

    Shapes as in ``kernels``; ``decay`` (B, H, S, F) is log a, from ``FLOOR`` to 0. A chunk is attended quadratically
    (gated linear attention, Yang et al. 2023, arXiv 2312.06635, section 4), what lies before it is read from the
    running state. Returns the output (B, H, T, D) and the state (B, H, F, D + 1).
    """
    length, values = q.shape[-2], _values_and_one(v)
    if length == 0:
        nothing = q.new_zeros(*q.shape[:2], q.shape[-1], values.shape[-1]) if state is None else state
        return torch.empty_like(v), nothing
    chunk = min(chunk, length) if size == 1 else size  # a single token, as in decoding, is a chunk of one
    q, k, values, decay = (_cut(x, chunk) for x in (q, k, values, decay))  # (B, H, N, chunk, .)
    faded = decay.cumsum(-2)
    states, last = _states(state, k, values, faded)
    if size == 1:
        q = q * faded.exp()
        sums = (q @ (k * (-faded).exp()).transpose(-1, -2)).tril() @ values + q @ states
    else:  # a block is read at its end, so that there is no order inside
        sums = q @ torch.cat((states[:, :, 1:], last.unsqueeze(2)), dim=2)
    return _normalise(sums.flatten(2, 3)[..., :length, :]).to(v.dtype), last


def _states(state: Tensor | None, k: Tensor, values: Tensor, faded: Tensor) -> tuple[Tensor, Tensor]:
    """The state before each chunk, (B, H, N, F, D + 1), and after the last one."""
    end = faded[..., -1:, :]
    added = (k * (end - faded).exp()).transpose(-1, -2) @ values
    kept = end.exp().transpose(-1, -2)
    state = torch.zeros_like(added[:, :, 0]) if state is None else state
    states = []
    for i in range(added.shape[2]):
        states.append(state)
        state = kept[:, :, i] * state + added[:, :, i]
    return torch.stack(states, dim=2), state


def _cut(x: Tensor, chunk: int) -> Tensor:
    """(.., S, n) -> (.., N, chunk, n); zeros at the end change nothing."""
    return F.pad(x, (0, 0, 0, -x.shape[-2] % chunk)).unflatten(-2, (-1, chunk))


def _values_and_one(v: Tensor) -> Tensor:
    return F.pad(v.to(work_dtype(v)), (0, 1), value=1.0)


def _normalise(sums: Tensor) -> Tensor:
    return sums[..., :-1] / sums[..., -1:].clamp_min(EPS)


def _check(view: View, q: Tensor, k: Tensor) -> None:
    if not isinstance(view, Causal | Blocks):
        raise ValueError(
            f"attention that fades takes tokens in order, so it cannot follow {view}: use it in the decoder's "
            "self-attention, or in an encoder that hears chunks (--encoder-chunk-size)"
        )
    check_view(view, q, k)


@dataclass(frozen=True)
class DecayOptions:
    """After how many tokens, or encoder states, a head has forgotten half."""

    shortest: float = field(default=22.0, metadata={"help": "half-life of the head that forgets fastest, in tokens"})
    longest: float = field(default=2839.0, metadata={"help": "half-life of the head that forgets slowest, in tokens"})


class FixedDecay(nn.Module):
    """Retention's decay (Sun et al. 2023, arXiv 2307.08621, equation 8): one rate for each head.

    Half-lives are spaced evenly by ratio; the defaults are the paper's 1 - 2^-5 to 1 - 2^-12 of eight heads.

    Raises:
        ValueError: half-lives that are out of order, or shorter than a gate can be.
    """

    def __init__(self, shortest: float, longest: float) -> None:
        super().__init__()
        if not 1 <= shortest <= longest < math.inf:
            raise ValueError(
                f"--decay-shortest and --decay-longest must be half-lives with 1 <= shortest <= longest, but are "
                f"{shortest} and {longest}"
            )
        self.shortest, self.longest = shortest, longest

    def forward(self, k: Tensor) -> Tensor:
        heads = torch.linspace(0, 1, k.shape[1], dtype=k.dtype, device=k.device)
        half_lives = self.shortest * (self.longest / self.shortest) ** heads
        return (-math.log(2) / half_lives)[None, :, None, None]


@dataclass(frozen=True)
class GLAOptions:
    """How easily gates close."""

    temperature: float = field(default=16.0, metadata={"help": "a = sigmoid(.)^(1 / temperature): more forgets less"})


class LearnedGates(nn.Module):
    """a = sigmoid(W k + b)^(1 / temperature) (Yang et al. 2023, arXiv 2312.06635, section 4.3), one for each feature.

    Computed from the head's keys, and shared by the heads; never below e^-2.

    Raises:
        ValueError: a temperature that is not above 0.
    """

    def __init__(self, head_dim: int, temperature: float) -> None:
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"--gla-temperature must be above 0, but is {temperature}")
        self.temperature = temperature
        self.projection = nn.Linear(head_dim, head_dim)

    def forward(self, k: Tensor) -> Tensor:
        return (F.logsigmoid(linear(self.projection, k)) / self.temperature).clamp_min(FLOOR)


@register_attention("decay", options=DecayOptions)
def decay(head_dim: int, options: DecayOptions) -> nn.Module:
    """ReLU features, and a state that fades at a fixed rate in each head (retention, arXiv 2307.08621)."""
    return GatedAttention(ReLUFeatures(), FixedDecay(options.shortest, options.longest))


@register_attention("gla", options=GLAOptions)
def gla(head_dim: int, options: GLAOptions) -> nn.Module:
    """ELU + 1 features, and a state that fades by gates that the keys open and close (GLA, arXiv 2312.06635)."""
    return GatedAttention(ELUFeatures(), LearnedGates(head_dim, options.temperature))
