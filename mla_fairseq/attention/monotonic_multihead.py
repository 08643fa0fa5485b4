"""Monotonic multihead attention (Ma et al. 2020, arXiv 1909.12406) over any mechanism: decisions, then attention."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.attention.base import Layout, Tensors, positions
from mla_fairseq.attention.monotonic import Monotonic, chunkwise, infinite_lookback, pool, steps_of
from mla_fairseq.attention.multihead import AttentionHeads
from mla_fairseq.attention.numerics import full_precision, work_dtype
from mla_fairseq.attention.state import State
from mla_fairseq.attention.views import Full

MEMORY = "mechanism."  # prefix of the mechanism's state in the state of the module


class MonotonicMultiheadAttention(AttentionHeads):
    """Cross-attention whose heads move forward through the source, each by its own decisions.

    ``q_proj`` and ``k_proj`` are for the mechanism, as in ``MultiheadAttention``, whose checkpoints can initialize this
    module; ``q_proj_mono`` and ``k_proj_mono`` are for the decisions: ``p = sigmoid(q . k / sqrt(d) + bias)``.

    In training, ``forward`` computes the expectation over all decisions. In decoding, ``feed`` adds source states, and
    ``advance`` tries the next target: a head stops at the first step with p > 1/2. Tensors of the state:

        step (B, H): the current step of each head; seen (B, H): the states up to its end;
        fed (B,): the number of source states; over (B,): whether the source has ended;
        tail (B, n, C): source states of an incomplete step;
        decide (B, H, J, d): keys of the steps from ``first_step`` (B,) on;
        key, value (B, H, n, d): of the source states from ``first_state`` (B,) on;
        mechanism.* and held (B, H), for infinite lookback with a constant state: the mechanism's state after what each
            head has read, and how many source states that is.
    """

    def __init__(self, *args: Any, monotonic: Monotonic | None = None, **kwargs: Any) -> None:
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
        """Whether the states that a head has read are kept as a state of constant size."""
        return self.monotonic.soft == "infinite_lookback" and self.mechanism.constant_state

    def forward(self, query: Tensor, key: Tensor, layout: Layout | None = None) -> tuple[Tensor, Tensor]:
        """Return the expected output (T, B, C), and the expected number of states read for each target (B, H, T).

        Arguments as in ``MultiheadAttention``; the view is full. In training mode, noise is added to energies.
        """
        layout, rule, states = self._checked(query, key, layout), self.monotonic, len(key)
        if layout.view != Full():
            raise ValueError(f"monotonic heads decide what they see: the view must be Full(), but is {layout.view}")
        mask = layout.key_mask
        lengths = torch.full((key.shape[1],), states, device=key.device) if mask is None else mask.sum(1)
        pooled = pool(key, rule.ratio, rule.pooling, mask)
        p = self._emit_probability(self._heads(self.q_proj_mono(query)), self._heads(self.k_proj_mono(pooled)))
        alignment, delays = rule.align(p, lengths, states)
        attention, v = self._soften(alignment, query, key, layout), self._heads(self.v_proj(key))
        return self._join((attention.to(v.dtype) @ v).to(query.dtype)), delays

    def feed(self, key: Tensor | None, state: State, final: bool, key_mask: Tensor | None = None) -> None:
        """Add source states (n, B, kdim) or none to the state; ``final``: the source has ended.

        ``key_mask`` (B, n), true for real states, is for a final call only: no states may follow padding.
        """
        if key is None:
            tensors = self._stored(state)
            key = tensors["tail"].transpose(0, 1)[:0]
        else:
            tensors = state.get(self.name) or self._fresh(key)
        ratio, tail = self.monotonic.ratio, tensors["tail"]
        waiting = torch.cat((tail.transpose(0, 1), key))
        complete = len(waiting) if final else len(waiting) // ratio * ratio
        new = {
            "tail": waiting[complete:].transpose(0, 1),
            "fed": tensors["fed"] + (len(key) if key_mask is None else key_mask.sum(1)),
            "over": tensors["over"] | final,
            "key": torch.cat((tensors["key"], self._heads(self.k_proj(key))), dim=2),
            "value": torch.cat((tensors["value"], self._heads(self.v_proj(key))), dim=2),
        }
        if complete:
            mask = None if key_mask is None else F.pad(key_mask, (tail.shape[1], 0), value=True)[:, :complete]
            steps = pool(waiting[:complete], ratio, self.monotonic.pooling, mask)
            new["decide"] = torch.cat((tensors["decide"], self._heads(self.k_proj_mono(steps))), dim=2)
        state[self.name] = {**tensors, **new}

    def advance(self, query: Tensor, state: State, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Try the next target (1, B, C), at ``layout.queries``, on the source states so far.

        Returns the output (1, B, C), the number of states that each head has read (B, H), and whether any head of a
        stream needs more of them (B,). In that case, unless the source has ended, the output is not valid, and the
        caller restores the state from before the call. ``layout.keys`` is not used.
        """
        tensors = dict(self._stored(state))
        if len(query) != 1:
            raise ValueError(f"give one target at a time, not {len(query)}")
        found = self._decide(query, tensors)
        q = self._heads(self.q_proj(query))
        with self._precision(q):
            output = (self._from_memory if self.remembers else self._from_keys)(tensors, q, layout)
        if not self.monotonic.mass_preservation:
            output = output * found[..., None, None]
        state[self.name] = tensors
        return self._join(output.to(query.dtype)), tensors["seen"], ~found.all(-1)

    def _decide(self, query: Tensor, tensors: Tensors) -> Tensor:
        """Move each head to its next step; return whether it found one (B, H), else it is at the end."""
        rule, first = self.monotonic, tensors["first_step"]
        p = self._emit_probability(self._heads(self.q_proj_mono(query)), tensors["decide"])[:, :, 0]
        known = steps_of(tensors["fed"], rule.ratio, rule.pad_threshold)
        known = torch.where(tensors["over"], known, tensors["fed"] // rule.ratio).unsqueeze(-1)
        places = positions(first, p.shape[-1]).unsqueeze(1)
        stops = (p > 0.5) & (places >= tensors["step"].unsqueeze(-1)) & (places < known.unsqueeze(-1))
        found = stops.any(-1)
        at = first.unsqueeze(-1) + F.pad(stops.int(), (0, 1)).argmax(-1)  # the first stop; padded: p may have no step
        last = known.expand_as(at) - int(rule.mass_preservation)  # else past the last step, for all later targets too
        tensors["step"] = torch.where(found, at, last)
        tensors["seen"] = torch.minimum((tensors["step"] + 1) * rule.ratio, tensors["fed"].unsqueeze(-1))
        return found

    def _from_memory(self, tensors: Tensors, q: Tensor, layout: Layout) -> Tensor:
        """Return (B, H, 1, D) from each head's memory, after writing the states that the head has read since."""
        places = (keys := positions(tensors["first_state"], tensors["key"].shape[2])).unsqueeze(1)
        new = (places >= tensors["held"].unsqueeze(-1)) & (places < tensors["seen"].unsqueeze(-1))
        layout = replace(layout, view=Full(), keys=keys, key_mask=new)  # other states count as padding
        memory = {name.removeprefix(MEMORY): x for name, x in tensors.items() if name.startswith(MEMORY)}
        memory = self.mechanism.write(memory, tensors["key"], tensors["value"], layout)
        tensors |= {MEMORY + name: x for name, x in memory.items()}
        tensors["held"] = tensors["seen"]
        self._drop(tensors)
        return self.mechanism.read(memory, q, layout)

    def _from_keys(self, tensors: Tensors, q: Tensor, layout: Layout) -> Tensor:
        """Return (B, H, 1, D) from the stored keys and values."""
        rule = self.monotonic
        back = {"hard_aligned": 1, "chunkwise": rule.chunk}.get(rule.soft)
        places = (keys := positions(tensors["first_state"], tensors["key"].shape[2])).unsqueeze(1)
        visible = places < tensors["seen"].unsqueeze(-1)
        if back is not None:
            visible &= places >= tensors["seen"].unsqueeze(-1) - back
        if rule.soft == "hard_aligned":
            weights = visible.to(torch.float32).unsqueeze(2)
        else:
            some = visible.any(1)  # (B, n): states that no head sees may be padding
            weights = self.mechanism.scores(q, tensors["key"], replace(layout, view=Full(), keys=keys, key_mask=some))
            weights = weights * visible.unsqueeze(2)
            weights = weights / weights.sum(-1, keepdim=True).clamp_min(self.mechanism.eps)
        output = weights.to(q.dtype) @ tensors["value"]
        if back is not None:
            self._drop(tensors, back)  # a head that does not move sees its last states again
        return output

    def _drop(self, tensors: Tensors, back: int = 0) -> None:
        """Drop what all heads of all streams have passed, except the last ``back`` states; wait for the device once."""
        passed = (tensors["seen"].amin(1) - back).clamp_min(0) - tensors["first_state"]
        states, steps = torch.stack((passed.amin(), (tensors["step"].amin(1) - tensors["first_step"]).amin())).tolist()
        if states > 0:
            tensors |= {name: tensors[name][:, :, states:] for name in ("key", "value")}
            tensors["first_state"] = tensors["first_state"] + states
        if steps > 0:
            tensors["decide"] = tensors["decide"][:, :, steps:]
            tensors["first_step"] = tensors["first_step"] + steps

    def _soften(self, alignment: Tensor, query: Tensor, key: Tensor, layout: Layout) -> Tensor:
        """Return the expected attention (B, H, T, S) of heads that are aligned to states (B, H, T, S)."""
        rule, eps = self.monotonic, self.mechanism.eps
        if rule.soft == "hard_aligned":
            return alignment
        q, k = self._heads(self.q_proj(query)), self.keys(key)
        with self._precision(q):
            scores = self.mechanism.scores(q, k, layout).to(alignment.dtype)
        if rule.soft == "chunkwise":
            return chunkwise(alignment, scores, rule.chunk, eps)
        return infinite_lookback(alignment, scores, eps)

    def _emit_probability(self, q: Tensor, k: Tensor) -> Tensor:
        """Return p (B, H, T, J), in float32 at least."""
        with full_precision(q):
            energy = (q.to(work_dtype(q)) @ k.to(work_dtype(k)).mT) * self.head_dim**-0.5
        if self.energy_bias is not None:
            energy = energy + self.energy_bias
        if self.training and self.monotonic.noise_var > 0:
            energy = energy + self.monotonic.noise_mean + self.monotonic.noise_var**0.5 * torch.randn_like(energy)
        return energy.sigmoid()

    def _stored(self, state: State) -> Tensors:
        if self.name not in state:
            raise ValueError("feed source states first: there is no state yet")
        return state[self.name]

    def _fresh(self, key: Tensor) -> Tensors:
        empty = self._heads(self.k_proj(key[:0]))
        zeros = torch.zeros(key.shape[1], dtype=torch.long, device=key.device)
        by_head = zeros.unsqueeze(-1).expand(-1, self.num_heads)
        return {
            "step": by_head, "seen": by_head, "held": by_head, "fed": zeros, "first_step": zeros,
            "first_state": zeros, "over": zeros.bool(), "tail": key[:0].transpose(0, 1), "key": empty,
            "value": empty, "decide": empty,
        }  # fmt: skip
