"""Monotonic multihead attention (Ma et al. 2020, arXiv 1909.12406) over any mechanism: who decides, and who attends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.attention.base import Layout, positions
from mla_fairseq.attention.monotonic import (
    chunkwise,
    ends,
    expected_alignment,
    infinite_lookback,
    pool,
    steps_of,
    to_states,
)
from mla_fairseq.attention.multihead import AttentionHeads
from mla_fairseq.attention.numerics import full_precision, work_dtype
from mla_fairseq.attention.state import State
from mla_fairseq.attention.views import Full

MEMORY = "mechanism."
"""Where a state stores that of the mechanism."""

SOFT_TYPES = ("hard_aligned", "infinite_lookback", "chunkwise")


@dataclass(frozen=True)
class Monotonic:
    """How heads decide, and what they attend to where they have stopped.

    Attributes:
        soft: ``hard_aligned``: the last state read; ``infinite_lookback``: all that were read; ``chunkwise``: the last
            ``chunk``.
        ratio: states in a decision step (fixed pre-decision, Ma et al. 2020, arXiv 2011.02048); 1: each state is one.
        pooling: ``average`` or ``last``: what stands for the states of a step.
        pad_threshold: the last step counts unless more than this part of it is missing.
        chunk: states that ``chunkwise`` attends to.
        mass_preservation: at the last step every head writes.
        noise_mean, noise_var: of the noise on energies in training, which drives probabilities to 0 and 1.
        energy_bias: whether a bias is learned, from ``energy_bias_init`` on.

    Raises:
        ValueError: an unknown ``soft`` or ``pooling``, or numbers out of range.
    """

    soft: str = "infinite_lookback"
    ratio: int = 1
    pooling: str = "average"
    pad_threshold: float = 1.0
    chunk: int = 10
    mass_preservation: bool = True
    noise_mean: float = 0.0
    noise_var: float = 1.0
    energy_bias: bool = False
    energy_bias_init: float = -2.0

    def __post_init__(self) -> None:
        if self.soft not in SOFT_TYPES:
            raise ValueError(f"monotonic attention must be one of {', '.join(SOFT_TYPES)}, but is {self.soft!r}")
        if self.pooling not in ("average", "last"):
            raise ValueError(f"--fixed-pre-decision-type must be average or last, but is {self.pooling!r}")
        if self.ratio < 1 or self.chunk < 1:
            raise ValueError(
                f"--fixed-pre-decision-ratio and --mocha-chunk-size must be at least 1, but are {self.ratio} and "
                f"{self.chunk}"
            )
        if not 0 <= self.pad_threshold <= 1:
            raise ValueError(f"--fixed-pre-decision-pad-threshold must be within 0 and 1, but is {self.pad_threshold}")
        if self.noise_var < 0:
            raise ValueError(f"--noise-var must be at least 0, but is {self.noise_var}")


class MonotonicMultiheadAttention(AttentionHeads):
    """Cross-attention whose heads move forward through the source, each by its own decisions.

    ``q_proj`` and ``k_proj`` serve the mechanism, as in ``MultiheadAttention``, so that its checkpoints initialize
    this; ``q_proj_mono`` and ``k_proj_mono`` serve the decisions: ``p = sigmoid(q . k / sqrt(d) + bias)``.

    In training a whole target is attended in expectation over all decisions (``forward``). In decoding a head stops
    at the first step whose p is above 1/2: ``feed`` gives new source states, ``advance`` tries the next target on them.
    State of a stream (dim 0 is B):

        step (B, H), the step at which each head is; seen (B, H), the states up to its end; tail (B, n, C), states of a
        step that is not complete; fed (B,), states that were given; over (B,), whether the source has ended; decide
        (B, H, J, d), keys of the steps from ``first_step`` (B,) on; key and value (B, H, n, d), of the states from
        ``first_state`` (B,) on; with a mechanism of constant state that looks back without end, its state of what each
        head has read under ``mechanism.*``, and held (B, H), how many states that is: all before the slowest head is
        dropped then.
    """

    def __init__(self, *args, monotonic: Monotonic | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.monotonic = monotonic or Monotonic()
        self.q_proj_mono = nn.Linear(self.q_proj.in_features, self.q_proj.out_features)
        self.k_proj_mono = nn.Linear(self.k_proj.in_features, self.k_proj.out_features)
        for projection in (self.q_proj_mono, self.k_proj_mono):
            nn.init.xavier_uniform_(projection.weight, gain=2**-0.5)
        bias = torch.tensor(float(self.monotonic.energy_bias_init))
        self.energy_bias = nn.Parameter(bias) if self.monotonic.energy_bias else None

    @property
    def remembers(self) -> bool:
        """Whether what a head has read is a state of constant size."""
        return self.monotonic.soft == "infinite_lookback" and self.mechanism.constant_state

    def forward(self, query: Tensor, key: Tensor, layout: Layout | None = None) -> tuple[Tensor, Tensor]:
        """Return the output (T, B, C) in expectation, and the expected number of states read for each target (B, H, T).

        Arguments as in ``MultiheadAttention``; the view is full. Energies have noise in training mode.
        """
        layout, rule, states = self._checked(query, key, layout), self.monotonic, len(key)
        if layout.view != Full():
            raise ValueError(f"monotonic heads decide what they see: the view must be Full(), but is {layout.view}")
        mask = layout.key_mask
        lengths = torch.full((key.shape[1],), states, device=key.device) if mask is None else mask.sum(1)
        pooled = pool(key, rule.ratio, rule.pooling, mask)
        p = self._write_probability(self._heads(self.q_proj_mono(query)), self._heads(self.k_proj_mono(pooled)))
        alignment = expected_alignment(p, steps_of(lengths, rule.ratio, rule.pad_threshold), rule.mass_preservation)
        step_ends = ends(p.shape[-1], lengths, rule.ratio)
        delays = (alignment * step_ends[:, None, None]).sum(-1)
        attention = to_states(alignment, step_ends, states)
        if rule.soft != "hard_aligned":
            attention = self._soften(attention, self._scores(query, key, layout).to(attention.dtype))
        v = self._heads(self.v_proj(key))
        return self._join((attention.to(v.dtype) @ v).to(query.dtype)), delays

    def feed(self, key: Tensor | None, state: State, final: bool, key_mask: Tensor | None = None) -> None:
        """Give the next source states (n, B, kdim); ``None``: none. ``final``: no more will come.

        ``key_mask`` (B, n), true for real states, only with ``final``: what is padding never comes.
        """
        if key is None and self.name not in state:
            raise ValueError("feed source states first: there is no state yet")
        own = state.get(self.name) or self._fresh(key)
        if key is None:
            key = own["tail"].new_zeros(0, own["tail"].shape[0], own["tail"].shape[2])
        batch, ratio = key.shape[1], self.monotonic.ratio
        real = torch.full((batch,), len(key), device=key.device) if key_mask is None else key_mask.sum(1)
        waiting = torch.cat((own["tail"].transpose(0, 1), key))
        tail_mask = torch.ones(batch, own["tail"].shape[1], dtype=torch.bool, device=key.device)
        mask = None if key_mask is None else torch.cat((tail_mask, key_mask), dim=1)
        complete = len(waiting) if final else len(waiting) // ratio * ratio
        new = {
            "tail": waiting[complete:].transpose(0, 1),
            "fed": own["fed"] + real,
            "over": own["over"] | final,
            "key": torch.cat((own["key"], self._heads(self.k_proj(key))), dim=2),
            "value": torch.cat((own["value"], self._heads(self.v_proj(key))), dim=2),
        }
        if complete:
            mask = None if mask is None else mask[:, :complete]
            steps = pool(waiting[:complete], ratio, self.monotonic.pooling, mask)
            new["decide"] = torch.cat((own["decide"], self._heads(self.k_proj_mono(steps))), dim=2)
        state[self.name] = {**own, **new}

    def advance(self, query: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Try the next target (1, B, C), at ``layout.queries``, on what was fed; the layout's keys are not looked at.

        Returns the output (1, B, C); how many states each head has read, (B, H); and whether any head of a stream
        needs more, (B,): unless the source has ended, the output is then not valid, and it is for the caller to go back
        to the state of before.
        """
        if self.name not in state:
            raise ValueError("feed source states first: there is no state yet")
        if len(query) != 1:
            raise ValueError(f"give one target at a time, not {len(query)}")
        own, rule = dict(state[self.name]), self.monotonic
        p = self._write_probability(self._heads(self.q_proj_mono(query)), own["decide"])[:, :, 0]
        known = steps_of(own["fed"], rule.ratio, rule.pad_threshold)
        known = torch.where(own["over"], known, own["fed"] // rule.ratio).unsqueeze(-1)
        places = positions(own["first_step"], p.shape[-1]).unsqueeze(1)
        stops = (p > 0.5) & (places >= own["step"].unsqueeze(-1)) & (places < known.unsqueeze(-1))
        found = stops.any(-1)
        at = own["first_step"].unsqueeze(-1) + F.pad(stops.int(), (0, 1)).argmax(-1)  # the first
        last = known.expand_as(at) - 1 if rule.mass_preservation else known.expand_as(at)  # or beyond, for good
        own["step"] = torch.where(found, at, last)
        own["seen"] = torch.minimum((own["step"] + 1) * rule.ratio, own["fed"].unsqueeze(-1))
        q = self._heads(self.q_proj(query))
        with self._precision(q):
            output = (self._from_memory if self.remembers else self._from_keys)(own, q, layout)
        if not rule.mass_preservation:
            output = output * found[..., None, None]
        state[self.name] = own
        return self._join(output.to(query.dtype)), own["seen"], ~found.all(-1)

    def _from_memory(self, own: dict[str, Tensor], q: Tensor, layout: Layout) -> Tensor:
        """Return (B, H, 1, D) from each head's memory, after adding what the head has read since."""
        places = (keys := positions(own["first_state"], own["key"].shape[2])).unsqueeze(1)
        new = (places >= own["held"].unsqueeze(-1)) & (places < own["seen"].unsqueeze(-1))
        layout = replace(layout, view=Full(), keys=keys, key_mask=new)
        memory = {name.removeprefix(MEMORY): x for name, x in own.items() if name.startswith(MEMORY)}
        memory = self.mechanism.write(memory, own["key"], own["value"], layout)
        own |= {MEMORY + name: x for name, x in memory.items()}
        own["held"] = own["seen"]
        self._drop(own)
        return self.mechanism.read(memory, q, layout)

    def _drop(self, own: dict[str, Tensor], back: int = 0) -> None:
        """Drop what every head has passed but the last ``back`` states: of each stream as much as of the slowest."""
        states = int(((own["seen"].amin(1) - back).clamp_min(0) - own["first_state"]).amin())
        if states > 0:
            own |= {name: own[name][:, :, states:] for name in ("key", "value")}
            own["first_state"] = own["first_state"] + states
        steps = int((own["step"].amin(1) - own["first_step"]).amin())
        if steps > 0:
            own["decide"] = own["decide"][:, :, steps:]
            own["first_step"] = own["first_step"] + steps

    def _from_keys(self, own: dict[str, Tensor], q: Tensor, layout: Layout) -> Tensor:
        """Return (B, H, 1, D) from the keys and values that are stored."""
        rule = self.monotonic
        back = {"hard_aligned": 1, "chunkwise": rule.chunk}.get(rule.soft)
        places = (keys := positions(own["first_state"], own["key"].shape[2])).unsqueeze(1)
        visible = places < own["seen"].unsqueeze(-1)
        if back is not None:
            visible &= places >= own["seen"].unsqueeze(-1) - back
        if rule.soft == "hard_aligned":
            weights = visible.to(torch.float32).unsqueeze(2)
        else:
            some = visible.any(1)  # (B, n): others may be padding
            weights = self.mechanism.scores(q, own["key"], replace(layout, view=Full(), keys=keys, key_mask=some))
            weights = weights * visible.unsqueeze(2)
            weights = weights / weights.sum(-1, keepdim=True).clamp_min(self.mechanism.eps)
        output = weights.to(q.dtype) @ own["value"]
        if back is not None:
            self._drop(own, back)  # a head that stays where it is sees them again
        return output

    def _scores(self, query: Tensor, key: Tensor, layout: Layout) -> Tensor:
        q, k = self._heads(self.q_proj(query)), self.keys(key)
        with self._precision(q):
            return self.mechanism.scores(q, k, layout)

    def _soften(self, alignment: Tensor, scores: Tensor) -> Tensor:
        rule, eps = self.monotonic, self.mechanism.eps
        everything = rule.soft == "infinite_lookback"
        return (
            infinite_lookback(alignment, scores, eps) if everything else chunkwise(alignment, scores, rule.chunk, eps)
        )

    def _write_probability(self, q: Tensor, k: Tensor) -> Tensor:
        """(B, H, T, J), in float32 at least."""
        with full_precision(q):
            energy = (q.to(work_dtype(q)) @ k.to(work_dtype(k)).mT) * self.head_dim**-0.5
        if self.energy_bias is not None:
            energy = energy + self.energy_bias
        if self.training and self.monotonic.noise_var > 0:
            energy = energy + self.monotonic.noise_mean + self.monotonic.noise_var**0.5 * torch.randn_like(energy)
        return energy.sigmoid()

    def _fresh(self, key: Tensor) -> dict[str, Tensor]:
        nothing = self._heads(self.k_proj(key[:0]))
        zeros = torch.zeros(key.shape[1], dtype=torch.long, device=key.device)
        apart = zeros.unsqueeze(-1).expand(-1, self.num_heads)
        return {
            "step": apart, "seen": apart, "held": apart, "fed": zeros, "first_step": zeros,
            "first_state": zeros, "over": zeros.bool(), "tail": key[:0].transpose(0, 1), "key": nothing,
            "value": nothing, "decide": nothing,
        }  # fmt: skip
