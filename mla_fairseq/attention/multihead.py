"""Multi-head attention: fairseq's projections around one mechanism of the registry."""

from __future__ import annotations

import itertools
import logging
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from mla_fairseq.attention.base import Layout, Mechanism
from mla_fairseq.attention.numerics import full_precision, work_dtype
from mla_fairseq.attention.registry import build_attention
from mla_fairseq.attention.state import State
from mla_fairseq.attention.views import Full

log = logging.getLogger(__name__)

FORMER_PREFIXES = ("features.", "positions.", "gates.")
"""Parameters of a mechanism were under these names in version 0.1."""


class AttentionHeads(nn.Module):
    """Projections and heads around a mechanism: what self-, cross- and monotonic attention have in common.

    Parameters carry fairseq's names (``q_proj``, ``k_proj``, ``v_proj``, ``out_proj``) and fairseq's initialization;
    tensors its layout (T, B, C). Dropout acts on the attention's output, before ``out_proj``, the same place in every
    form.

    Args:
        embed_dim: channels of queries and output (C).
        num_heads: heads H; C must be a multiple of it.
        mechanism: a mechanism, or a registered name.
        kdim: channels of the keys where they differ (cross-attention).
        dropout: probability on the output of the heads, or a module that applies it.
        name: dotted name under which the state of this module is stored; it must be unique in a model.

    Raises:
        ValueError: heads that do not divide the channels, or an unknown mechanism.
        TypeError: what is no mechanism.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mechanism: Mechanism | str = "softmax",
        kdim: int | None = None,
        dropout: float | nn.Module = 0.0,
        name: str = "attention",
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise ValueError(
                f"`embed_dim` must be a multiple of `num_heads`, but is {embed_dim} with {num_heads} heads"
            )
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.name = name
        self.mechanism = build_attention(mechanism, self.head_dim) if isinstance(mechanism, str) else mechanism
        if not isinstance(self.mechanism, Mechanism):
            raise TypeError(f"mechanism must be a Mechanism or a registered name, but is {mechanism!r}")
        kdim = embed_dim if kdim is None else kdim
        self.k_proj = nn.Linear(kdim, embed_dim)
        self.v_proj = nn.Linear(kdim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.dropout = dropout if isinstance(dropout, nn.Module) else nn.Dropout(dropout)
        self._reset_projections(same_size=kdim == embed_dim)

    def weights(self, query: Tensor, key: Tensor, layout: Layout | None = None, surrogate: bool = False) -> Tensor:
        """Return normalized weights (B, H, T, S) of a whole sequence; quadratic, computed only where asked for.

        ``surrogate``: for a loss on them, see ``Mechanism.surrogate_weights``.
        """
        layout = self._checked(query, key, layout)
        q, k = self._heads(self.q_proj(query)), self.keys(key)
        with self._precision(q):
            return (self.mechanism.surrogate_weights if surrogate else self.mechanism.weights)(q, k, layout)

    def keys(self, key: Tensor) -> Tensor:
        """Return the heads' keys (B, H, S, d) of a source (S, B, kdim), for ``weights_from_keys``."""
        return self._heads(self.k_proj(key))

    def weights_from_keys(self, query: Tensor, keys: Tensor, layout: Layout) -> Tensor:
        """Return normalized weights (B, H, T, S) of queries (T, B, C) over what ``keys`` returned."""
        q = self._heads(self.q_proj(query))
        with self._precision(q):
            return self.mechanism.weights(q, keys, layout)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Let a checkpoint of another mechanism load, ``name`` being this module's place in it (fairseq calls this).

        What belongs to the other mechanism is dropped; what only this one has stays as it is here, and is logged.
        """
        prefix = f"{name}.mechanism."
        own = {prefix + key: tensor for key, tensor in self.mechanism.state_dict().items()}
        for key, former in itertools.product(list(state_dict), FORMER_PREFIXES):
            new = prefix + key.removeprefix(prefix + former)
            if key.startswith(prefix + former) and key not in own and new in own:
                state_dict[new] = state_dict.pop(key)
        for key in [key for key in state_dict if key.startswith(prefix) and key not in own]:
            del state_dict[key]
        new = {key: tensor.clone() for key, tensor in own.items() if key not in state_dict}
        if new and f"{name}.q_proj.weight" in state_dict:
            first = next(iter(new))
            log.warning("%s and %d others are not in the checkpoint: they start from scratch", first, len(new) - 1)
        state_dict |= new
        return state_dict

    def _heads(self, x: Tensor) -> Tensor:
        """(T, B, C) -> (B, H, T, D), in the precision that the mechanism computes in."""
        x = x.unflatten(-1, (self.num_heads, self.head_dim)).permute(1, 2, 0, 3)
        return x if self.mechanism.half_precision else x.to(work_dtype(x))

    def _precision(self, x: Tensor) -> AbstractContextManager:
        return nullcontext() if self.mechanism.half_precision else full_precision(x)

    def _join(self, x: Tensor) -> Tensor:
        """(B, H, T, D) -> (T, B, C), the output of all heads."""
        return self.out_proj(self.dropout(x.permute(2, 0, 1, 3).flatten(2)))

    def _checked(self, query: Tensor, key: Tensor | None, layout: Layout | None) -> Layout:
        """Return the layout, by default that of whole sequences under a full view, if all shapes fit.

        Raises:
            ValueError: they do not, or the mechanism cannot follow the layout.
        """
        channels, kdim = self.q_proj.in_features, self.k_proj.in_features
        if query.dim() != 3 or query.shape[-1] != channels:
            raise ValueError(f"query must be (T, B, {channels}), but is {tuple(query.shape)}")
        if key is not None and (key.dim() != 3 or key.shape[1:] != (query.shape[1], kdim)):
            expected = f"(S, {query.shape[1]}, {kdim})"
            raise ValueError(f"key must be {expected} for this query, but is {tuple(key.shape)}")
        if layout is None:
            layout = Layout.whole(Full(), len(query), len(query if key is None else key), device=query.device)
        places = (layout.queries.shape[-1], None if key is None else layout.keys.shape[-1])
        if places != (given := (len(query), None if key is None else len(key))):
            raise ValueError(f"the layout is for (queries, keys) = {places}, but {given} are given")
        mask, sizes = layout.key_mask, {x.shape[0] for x in layout.tensors()}
        if not sizes <= {1, query.shape[1]}:
            raise ValueError(f"the layout is for {max(sizes)} streams, but query has {query.shape[1]}")
        if key is not None and mask is not None and (mask.dtype, *mask.shape) != (torch.bool, key.shape[1], len(key)):
            raise ValueError(
                f"the layout's key_mask must be boolean, (B, S) = {(key.shape[1], len(key))}, true for real keys, but "
                f"is {mask.dtype}, {tuple(mask.shape)}"
            )
        self.mechanism.check(layout)
        return layout

    def _reset_projections(self, same_size: bool) -> None:
        gain = 2**-0.5 if same_size else 1.0
        for projection in (self.k_proj, self.v_proj, self.q_proj):
            nn.init.xavier_uniform_(projection.weight, gain=gain)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)


class MultiheadAttention(AttentionHeads):
    """Self- or cross-attention with a mechanism of choice; arguments and parameters: see ``AttentionHeads``."""

    def forward(
        self, query: Tensor, key: Tensor | None, layout: Layout | None = None, state: State | None = None
    ) -> Tensor:
        """Attend; self-attention where ``key`` is ``query``.

        Args:
            query: (T, B, C).
            key: (S, B, kdim), source of keys and values; ``None`` with a state: no new keys, only read.
            layout: positions, visibility, lengths and padding; ``None``: whole sequences, every query sees every key.
            state: the caller's dictionary, ``{}`` for a fresh stream; the new keys are added to what it holds, and its
                entry for this module is replaced. ``None``: the whole sequence is given here.

        Returns:
            (T, B, C)

        Raises:
            ValueError: shapes that do not fit, no key without a state, or a layout that the mechanism cannot follow.
        """
        if state is not None:
            self._check_state(state, layout, query.shape[1])
        elif key is None:
            raise ValueError("give `key`: without a state there are no keys to read")
        layout = self._checked(query, key, layout)
        q = self._heads(self.q_proj(query))
        if key is None:
            with self._precision(q):
                return self._join(self.mechanism.read(state.get(self.name, {}), q, layout).to(query.dtype))
        k, v = self._heads(self.k_proj(key)), self._heads(self.v_proj(key))
        with self._precision(q):
            if state is None:
                output = self.mechanism.parallel(q, k, v, layout)
            else:
                output, state[self.name] = self.mechanism.advance(state.get(self.name, {}), q, k, v, layout)
        return self._join(output.to(query.dtype))

    def _check_state(self, state: State, layout: Layout | None, batch: int) -> None:
        if layout is None:
            raise ValueError("give a layout with the state: `Layout.at(view, start, ...)` has the positions of a step")
        held = {x.shape[0] for x in state.get(self.name, {}).values()}
        if not held <= {batch}:
            raise ValueError(f"the state of {self.name!r} holds {max(held)} streams, but query has {batch}")
