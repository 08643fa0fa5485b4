"""Multi-head attention: fairseq's projections around one mechanism of the registry."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from mla_fairseq.attention.fused import EPS
from mla_fairseq.attention.linear import Lengths
from mla_fairseq.attention.registry import build_attention
from mla_fairseq.attention.state import State
from mla_fairseq.attention.views import Full, View

log = logging.getLogger(__name__)


class MultiheadAttention(nn.Module):
    """Self- or cross-attention whose mechanism is a part to choose.

    Parameters carry fairseq's names (``q_proj``, ``k_proj``, ``v_proj``, ``out_proj``) and fairseq's initialisation;
    tensors its layout (T, B, C). Dropout acts on the attention's output, before ``out_proj``, the same place in
    every form.

    Args:
        embed_dim: channels of queries and output (C).
        num_heads: heads H; C must be a multiple of it.
        mechanism: a module with the methods of ``registry.Mechanism``, or a registered name.
        kdim: channels of the keys where they differ (cross-attention).
        dropout: probability on the output of the heads.
        name: dotted name under which the state of this module is kept; it must be unique in a model.

    Raises:
        ValueError: heads that do not divide the channels, or an unknown mechanism.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        mechanism: nn.Module | str = "softmax",
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
        kdim = embed_dim if kdim is None else kdim
        self.k_proj = nn.Linear(kdim, embed_dim)
        self.v_proj = nn.Linear(kdim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout) if isinstance(dropout, float) else dropout
        self._reset_projections(same_size=kdim == embed_dim)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None,
        view: View | None = None,
        key_mask: Tensor | None = None,
        state: State | None = None,
        query_length: Tensor | None = None,
        key_length: Tensor | None = None,
    ) -> Tensor:
        """Attend; self-attention where ``key`` is ``query``.

        Args:
            query: (T, B, C).
            key: (S, B, kdim), source of keys and values; ``None`` with a state: nothing new, only read.
            view: who sees whom; by default every query sees every key.
            key_mask: (B, S), true for real keys, false for padding.
            state: the caller's dictionary, ``{}`` for a fresh stream; the new keys are added to what it holds, and
                its entry for this module is replaced. ``None``: the whole sequence is here.
            query_length, key_length: (B,), the true or expected lengths that positions are measured against; with
                a state they are fixed by the first call.

        Returns:
            (T, B, C)

        Raises:
            ValueError: shapes that do not fit, or no key without a state.
        """
        self._check(query, key, key_mask, state)
        lengths = Lengths(query_length, key_length)
        q = self._heads(self.q_proj(query))
        if key is None:
            output, state[self.name] = self.mechanism.read(state.get(self.name, {}), q, lengths)
        else:
            k, v = self._heads(self.k_proj(key)), self._heads(self.v_proj(key))
            if state is None:
                output = self.mechanism.parallel(q, k, v, view or Full(), key_mask, lengths)
            else:
                before = state.get(self.name, {})
                output, state[self.name] = self.mechanism.advance(before, q, k, v, view or Full(), key_mask, lengths)
        return self._join(output)

    def weights(
        self,
        query: Tensor,
        key: Tensor,
        view: View | None = None,
        key_mask: Tensor | None = None,
        query_length: Tensor | None = None,
        key_length: Tensor | None = None,
    ) -> Tensor:
        """Normalised weights (B, H, T, S) of a whole sequence; quadratic, computed only where they are asked for."""
        self._check(query, key, key_mask, None)
        q, k = self._heads(self.q_proj(query)), self._heads(self.k_proj(key))
        return self.mechanism.weights(q, k, view or Full(), key_mask, Lengths(query_length, key_length))

    def keys(self, key: Tensor) -> Tensor:
        """Keys (B, H, S, d) of a source (S, B, kdim), for ``weights_upon``."""
        return self._heads(self.k_proj(key))

    def weights_upon(
        self,
        query: Tensor,
        keys: Tensor,
        start: int,
        key_mask: Tensor | None = None,
        query_length: Tensor | None = None,
        key_length: Tensor | None = None,
    ) -> Tensor:
        """Normalised weights (B, H, T, S) of queries (T, B, C), the first at ``start``, over what ``keys`` gave.

        ``key_mask`` (B, S) is true for real keys; ``None``: all are.
        """
        places = torch.tensor([start, 0], device=query.device).unsqueeze(-1)
        lengths = Lengths(query_length, key_length)
        scores = self.mechanism.scores(self._heads(self.q_proj(query)), keys, *places, key_mask, lengths)
        return scores / scores.sum(-1, keepdim=True).clamp_min(EPS)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Let a checkpoint of another mechanism load, ``name`` being this module's place in it (fairseq calls this).

        What belongs to the other mechanism is left out; what only this one has stays as it is here, and is told.
        """
        prefix = f"{name}.mechanism."
        own = {prefix + key: tensor for key, tensor in self.mechanism.state_dict().items()}
        for key in [key for key in state_dict if key.startswith(prefix) and key not in own]:
            del state_dict[key]
        new = [key for key in own if key not in state_dict]
        if new and f"{name}.q_proj.weight" in state_dict:
            log.warning("%s and %d others are not in the checkpoint: they start anew", new[0], len(new) - 1)
        for key in new:
            state_dict[key] = own[key].clone()
        return state_dict

    def _heads(self, x: Tensor) -> Tensor:
        """(T, B, C) -> (B, H, T, D)"""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).permute(1, 2, 0, 3)

    def _join(self, x: Tensor) -> Tensor:
        """(B, H, T, D) -> (T, B, C), the output of all heads."""
        return self.out_proj(self.dropout(x.permute(2, 0, 1, 3).flatten(2)))

    def _check(self, query: Tensor, key: Tensor | None, key_mask: Tensor | None, state: State | None) -> None:
        if query.dim() != 3 or query.shape[-1] != self.q_proj.in_features:
            raise ValueError(f"query must be (T, B, {self.q_proj.in_features}), but is {tuple(query.shape)}")
        if key is None:
            if state is None:
                raise ValueError("without a state there is nothing to read: give `key`")
            return
        if key.dim() != 3 or key.shape[1:] != (query.shape[1], self.k_proj.in_features):
            expected = f"(S, {query.shape[1]}, {self.k_proj.in_features})"
            raise ValueError(f"key must be {expected} for this query, but is {tuple(key.shape)}")
        if key_mask is not None and key_mask.shape != (key.shape[1], key.shape[0]):
            raise ValueError(
                f"key_mask must be (B, S) = {(key.shape[1], key.shape[0])}, but is {tuple(key_mask.shape)}"
            )
        if key_mask is not None and key_mask.dtype != torch.bool:
            raise ValueError(f"key_mask must be boolean, true for real keys, but is {key_mask.dtype}")

    def _reset_projections(self, same_size: bool) -> None:
        gain = 2**-0.5 if same_size else 1.0
        for projection in (self.k_proj, self.v_proj, self.q_proj):
            nn.init.xavier_uniform_(projection.weight, gain=gain)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)
