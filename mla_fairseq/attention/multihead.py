"""Multi-head attention: fairseq's projections around a mechanism."""

import itertools
import logging
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from mla_fairseq.attention.base import Layout, Mechanism
from mla_fairseq.attention.numerics import describe, full_precision, work_dtype
from mla_fairseq.attention.registry import build_attention
from mla_fairseq.attention.state import State
from mla_fairseq.attention.views import Full

log = logging.getLogger(__name__)

FORMER_PREFIXES = ("features.", "positions.", "gates.")  # of a mechanism's parameters, in checkpoints of version 0.1
_NAMES = itertools.chain(["attention"], (f"attention{number}" for number in itertools.count(2)))


class AttentionHeads(nn.Module):
    """Projections and heads around a mechanism: the common part of self-, cross- and monotonic attention.

    Parameters have fairseq's names (``q_proj``, ``k_proj``, ``v_proj``, ``out_proj``) and fairseq's initialization;
    tensors have its layout (T, B, C). Dropout is applied to the output of the heads, before ``out_proj``, because
    linear forms have no weights to drop.

    Args:
        embed_dim: channels of queries and output (C).
        num_heads: heads H; C must be a multiple of it.
        mechanism: a mechanism, or a registered name.
        kdim: channels of the keys if they differ from the queries' (cross-attention).
        dropout: probability on the output of the heads, or a module that applies it.
        name: dotted name under which the state of this module is stored, unique in a model (copies of a module need
            other names); ``None``: ``attention``, ``attention2``, ..., unique in this process.

    Raises:
        ValueError: heads that do not divide the channels, or an unknown mechanism.
        TypeError: a ``mechanism`` that is neither a ``Mechanism`` nor a name.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, mechanism: Mechanism | str = "softmax", kdim: int | None = None,
        dropout: float | nn.Module = 0.0, name: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not all(hasattr(x, "__index__") for x in (embed_dim, num_heads)) or num_heads < 1 or embed_dim % num_heads:
            raise ValueError(f"embed_dim must be a multiple of num_heads, but is {embed_dim!r} with {num_heads} heads")
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.name = next(_NAMES) if name is None else name
        self.mechanism = build_attention(mechanism, self.head_dim) if isinstance(mechanism, str) else mechanism
        if not isinstance(self.mechanism, Mechanism):
            raise TypeError(f"mechanism must be a Mechanism or a registered name, but is {mechanism!r}")
        kdim = embed_dim if kdim is None else kdim
        self.k_proj = nn.Linear(kdim, embed_dim)
        self.v_proj = nn.Linear(kdim, embed_dim)
        self.q_proj = nn.Linear(embed_dim, embed_dim)
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.dropout = dropout if isinstance(dropout, nn.Module) else nn.Dropout(dropout)
        for projection in (self.k_proj, self.v_proj, self.q_proj):
            nn.init.xavier_uniform_(projection.weight, gain=2**-0.5 if kdim == embed_dim else 1.0)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def weights(self, query: Tensor, key: Tensor, layout: Layout | None = None, surrogate: bool = False) -> Tensor:
        """Return normalized weights (B, H, T, S) of a whole sequence; ``surrogate``: for a loss on them (quadratic)."""
        layout = self._checked(query, key, layout)
        return self.weights_from_keys(query, self.keys(key), layout, surrogate)

    def keys(self, key: Tensor) -> Tensor:
        """Return the heads' keys (B, H, S, d) of a source (S, B, kdim), for ``weights_from_keys``."""
        return self._heads(self.k_proj(key))

    def weights_from_keys(self, query: Tensor, keys: Tensor, layout: Layout, surrogate: bool = False) -> Tensor:
        """Return normalized weights (B, H, T, S) of queries (T, B, C) for the result of ``keys``; see ``weights``."""
        q = self._heads(self.q_proj(query))
        with self._precision(q):
            return (self.mechanism.surrogate_weights if surrogate else self.mechanism.weights)(q, keys, layout)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Prepare a checkpoint of another mechanism for loading; fairseq calls this with this module's name in it.

        Parameters of the other mechanism are dropped; those that only this one has keep their initial values.
        """
        prefix = f"{name}.mechanism."
        expected = {prefix + key: tensor for key, tensor in self.mechanism.state_dict().items()}
        for key in [key for key in state_dict if key.startswith(prefix) and key not in expected]:
            former = next((former for former in FORMER_PREFIXES if key.startswith(prefix + former)), "")
            renamed, tensor = prefix + key.removeprefix(prefix + former), state_dict.pop(key)
            if renamed in expected:
                state_dict[renamed] = tensor
        missing = {key: tensor.clone() for key, tensor in expected.items() if key not in state_dict}
        if missing and f"{name}.q_proj.weight" in state_dict:
            log.warning("parameters that are not in the checkpoint start from scratch: %s", ", ".join(missing))
        state_dict |= missing
        return state_dict

    def _heads(self, x: Tensor) -> Tensor:
        """Split (T, B, C) into heads (B, H, T, D), in the precision of the mechanism."""
        x = x.unflatten(-1, (self.num_heads, self.head_dim)).permute(1, 2, 0, 3)
        return x if self.mechanism.half_precision else x.to(work_dtype(x))

    def _precision(self, x: Tensor) -> AbstractContextManager:
        return nullcontext() if self.mechanism.half_precision else full_precision(x)

    def _join(self, x: Tensor) -> Tensor:
        """Join heads (B, H, T, D) to the output (T, B, C)."""
        return self.out_proj(self.dropout(x.permute(2, 0, 1, 3).flatten(2)))

    def _checked(self, query: Tensor, key: Tensor | None, layout: Layout | None) -> Layout:
        """Return the layout, by default that of whole sequences under a full view.

        Raises:
            ValueError: shapes that do not fit, or a layout that the mechanism cannot follow.
            TypeError: something else than a layout.
        """
        channels, kdim = self.q_proj.in_features, self.k_proj.in_features
        if not isinstance(query, Tensor) or query.dim() != 3 or query.shape[-1] != channels:
            raise ValueError(f"query must be (T, B, {channels}), but is {describe(query)}")
        if key is not None and not (isinstance(key, Tensor) and key.shape[1:] == (query.shape[1], kdim)):
            raise ValueError(f"key must be (S, {query.shape[1]}, {kdim}) for this query, but is {describe(key)}")
        if layout is None:
            layout = Layout.whole(Full(), len(query), len(query if key is None else key), device=query.device)
        elif not isinstance(layout, Layout):
            raise TypeError(f"layout must be a Layout, such as Layout.whole(view, {len(query)}), but is {layout!r}")
        sizes = (layout.queries.shape[-1], None if key is None else layout.keys.shape[-1])
        if sizes != (given := (len(query), None if key is None else len(key))):
            raise ValueError(f"the layout is for (queries, keys) = {sizes}, but {given} are given")
        if not layout.streams <= {1, query.shape[1]}:
            raise ValueError(f"the layout is for {max(layout.streams)} streams, but query has {query.shape[1]}")
        if key is not None and (mask := layout.key_mask) is not None:
            shape = (key.shape[1], len(key))
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape:
                raise ValueError(f"key_mask must be boolean, (B, S) = {shape}, true for keys, but is {describe(mask)}")
        self.mechanism.check(layout)
        return layout


class MultiheadAttention(AttentionHeads):
    """Self- or cross-attention with any mechanism; for arguments and parameters see ``AttentionHeads``."""

    def forward(
        self, query: Tensor, key: Tensor | None, layout: Layout | None = None, state: State | None = None
    ) -> Tensor:
        """Return the output (T, B, C); self-attention if ``key`` is ``query``.

        Args:
            query: (T, B, C).
            key: (S, B, kdim), source of keys and values; ``None`` with a state: no new keys, only read.
            layout: positions, visibility, lengths and padding; ``None``: whole sequences, every query sees every key.
            state: the caller's dictionary, ``{}`` for a fresh stream; the entry of this module is replaced. ``None``:
                this call has the whole sequence.

        Raises:
            ValueError: shapes that do not fit, no key and no state, or a layout that the mechanism cannot follow.
        """
        if state is not None:
            self._check_state(state, layout, query.shape[1])
        elif key is None:
            raise ValueError("there is neither a key nor a state to read: give one of them")
        layout = self._checked(query, key, layout)
        q = self._heads(self.q_proj(query))
        stored = {} if state is None else state.get(self.name, {})
        if key is None:
            with self._precision(q):
                return self._join(self.mechanism.read(stored, q, layout).to(query.dtype))
        k, v = self._heads(self.k_proj(key)), self._heads(self.v_proj(key))
        with self._precision(q):
            if state is None:
                output = self.mechanism.parallel(q, k, v, layout)
            else:
                output, state[self.name] = self.mechanism.advance(stored, q, k, v, layout)
        return self._join(output.to(query.dtype))

    def _check_state(self, state: State, layout: Layout | None, batch: int) -> None:
        if layout is None:
            raise ValueError("a state needs a layout: give Layout.at(view, start), which has the positions of a step")
        sizes = {x.shape[0] for x in state.get(self.name, {}).values()}
        if not sizes <= {batch}:
            raise ValueError(f"the state of {self.name!r} is for {max(sizes)} streams, but query has {batch}")
