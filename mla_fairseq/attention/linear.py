"""Linear attention: one class for every mechanism that is a feature map and, perhaps, a position vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from mla_fairseq.attention import kernels
from mla_fairseq.attention.precision import full_precision, to, work_dtype
from mla_fairseq.attention.sharing import Unchanged, is_plain, shared
from mla_fairseq.attention.views import Blocks, Causal, Full, Prefix, View, span

Tensors = dict[str, Tensor]
Map = Callable[[Tensor], Tensor]

QUADRATIC_LIMIT = 1.75
"""The quadratic form is the faster one up to this many times the multiplications of the linear form: it has few large
products, the other many small ones (measured on a CPU, where the forms meet at 130 to 330 positions)."""


@dataclass(frozen=True)
class Lengths:
    """What positions are measured against: (B,) or (1,) in tokens, the sequence's own length without its padding.

    ``None`` means: as many as there are (unpadded). With a state both must be known before the first token.
    """

    query: Tensor | None = None
    key: Tensor | None = None


UNKNOWN = Lengths()


class LinearAttention(nn.Module):
    """weight(t, s) = (phi(q_t) . phi(k_s)) (psi_q(t) . psi_k(s)): MLA's modular form (arXiv 2304.08453).

    ``features`` is phi, ``positions`` is psi or ``None`` (see ``features.py`` and ``positions.py``). Queries are (B, H,
    T, d), keys and values (B, H, S, d), ``key_mask`` (B, S) is true for real keys. The state of a stream holds
    ``memory`` (B, H, F, M (D + 1)) and, where positions are measured, the counters ``queries`` and ``keys`` (B,) and
    the lengths (B,) that were given with the first token; its size never grows.
    """

    def __init__(self, features: nn.Module, positions: nn.Module | None = None, chunk: int = 64) -> None:
        super().__init__()
        self.features = features
        self.positions = positions
        self.chunk = chunk

    @property
    def needs_lengths(self) -> bool:
        """Whether the expected lengths of queries and keys matter."""
        return self.positions is not None and getattr(self.positions, "measured", True)

    def parallel(
        self, q: Tensor, k: Tensor, v: Tensor, view: View, key_mask: Tensor | None = None, lengths: Lengths = UNKNOWN
    ) -> Tensor:
        """Outputs (B, H, T, D) of a whole sequence, in whichever form is faster.

        Raises:
            ValueError: a view with a limited past, which a sum over the past cannot give, or one that does not fit
                the numbers of queries and keys.
        """
        check_view(view, q, k)
        pays = self._quadratic_pays(view, q, k, v)
        if pays and self._fixed and _may_be_shared(view, q, lengths):
            factor = self._fixed_factor(view, q, k, key_mask, lengths)
            return kernels.quadratic(self._query_features(q), self._key_features(k, key_mask), v, visible=factor)
        q, k, pq, pk = self._project(q, k, key_mask, lengths)
        if pays:
            return kernels.quadratic(q, k, v, pq, pk, _mask(view, q, k))
        return self._linear(view, q, k, v, pq, pk, None)[0]

    def weights(
        self, q: Tensor, k: Tensor, view: View, key_mask: Tensor | None = None, lengths: Lengths = UNKNOWN
    ) -> Tensor:
        """Normalised weights (B, H, T, S): quadratic; to inspect, for attention-guided policies, for losses.

        Where features say how to wake (``waking``), the gradient is ``kernels.waking_weights``'s.
        """
        check_view(view, q, k)
        phi_q, phi_k, pq, pk = self._project(q, k, key_mask, lengths)
        mask, waking = _mask(view, phi_q, phi_k), getattr(self.features, "waking", None)
        if waking is None or not (phi_q.requires_grad or phi_k.requires_grad):
            return kernels.weights(phi_q, phi_k, pq, pk, mask)
        awake = self._query_features(q, waking), self._key_features(k, key_mask, waking)
        return kernels.waking_weights(*awake, pq, pk, mask)

    def scores(
        self,
        q: Tensor,
        k: Tensor,
        query_start: Tensor,
        key_start: Tensor,
        key_mask: Tensor | None = None,
        lengths: Lengths = UNKNOWN,
    ) -> Tensor:
        """Unnormalised weights (B, H, T, S) of queries and keys, the first of which stand at (B or 1,) starts."""
        q, k = self._query_features(q), self._key_features(k, key_mask)
        if self.positions is None:
            return kernels.scores(q, k)
        lengths = _whole_lengths(q, k, key_mask, lengths)
        pq = self.positions.query(q, _index(query_start, q), lengths.query)
        return kernels.scores(q, k, pq, self.positions.key(k, _index(key_start, k), lengths.key))

    def accumulate(
        self, memory: Tensor | None, k: Tensor, v: Tensor, keep: Tensor, start: Tensor, lengths: Lengths = UNKNOWN
    ) -> Tensor:
        """``write`` for heads that move on apart: of these keys, the first at (B,) ``start``, each head takes those
        that ``keep`` (B, H, S) says."""
        k = self._key_features(k, None) * keep.unsqueeze(-1)
        pk = None if self.positions is None else self.positions.key(k, _index(start, k), lengths.key)
        return kernels.write(memory, k, v, pk)

    def recall(self, memory: Tensor, q: Tensor, start: Tensor, lengths: Lengths = UNKNOWN) -> Tensor:
        """``read`` of what ``accumulate`` gave, by queries of which the first stands at (B,) ``start``."""
        q_features = self._query_features(q)
        pq = None if self.positions is None else self.positions.query(q_features, _index(start, q), lengths.query)
        return kernels.read(memory, q_features, pq).to(q.dtype)

    def write(
        self, state: Tensors, k: Tensor, v: Tensor, key_mask: Tensor | None = None, lengths: Lengths = UNKNOWN
    ) -> Tensors:
        """The state after these keys and values; ``state`` itself is not changed, ``{}`` is a fresh one."""
        state = self._open(state, k, lengths)
        k = self._key_features(k, key_mask)
        memory = kernels.write(state.get("memory"), k, v, self._key_positions(state, k))
        return self._close(state, memory, keys=k.shape[-2])

    def read(self, state: Tensors, q: Tensor, lengths: Lengths = UNKNOWN) -> tuple[Tensor, Tensors]:
        """Outputs (B, H, T, D) of the next T queries, and the state with its query counter moved on."""
        if "memory" not in state:
            raise ValueError("nothing was written to this state: write keys before reading it")
        features = self._query_features(q)
        output = kernels.read(state["memory"], features, self._query_positions(state, features)).to(q.dtype)
        return output, self._close(state, state["memory"], queries=q.shape[-2])

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
        """Outputs (B, H, T, D) of the next T queries given S new keys, and the state after both.

        ``Causal`` and ``Blocks`` need T = S, and ``Blocks`` calls that start at a block; with ``Prefix`` lengths are
        counted from the first key given here.
        """
        check_view(view, q, k)
        state = self._open(state, k, lengths)
        q, k = self._query_features(q), self._key_features(k, key_mask)
        pq, pk, memory = self._query_positions(state, q), self._key_positions(state, k), state.get("memory")
        output, memory = self._linear(view, q, k, v, pq, pk, memory)
        return output, self._close(state, memory, queries=q.shape[-2], keys=k.shape[-2])

    def _linear(
        self,
        view: View,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pq: Tensor | None,
        pk: Tensor | None,
        memory: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The form whose cost is linear in T and S, from the features on."""
        if isinstance(view, Full):
            return kernels.full(q, k, v, pq, pk, memory)
        if isinstance(view, Prefix):
            return kernels.prefix(q, k, v, torch.atleast_2d(view.lengths), pq, pk, memory, self.chunk)
        return kernels.blocks(q, k, v, pq, pk, memory, view.size if isinstance(view, Blocks) else 1, self.chunk)

    def _quadratic_pays(self, view: View, q: Tensor, k: Tensor, v: Tensor) -> bool:
        """Compare multiplications per head; the linear form is quadratic inside a chunk."""
        queries, keys, pair = q.shape[-2], k.shape[-2], q.shape[-1] + v.shape[-1]
        pairs_in_chunks = 0 if isinstance(view, Full) else min(queries, self.chunk) * keys
        state = q.shape[-1] * v.shape[-1] * (1 if self.positions is None else self.positions.size)
        return queries * keys * pair <= QUADRATIC_LIMIT * (pairs_in_chunks * pair + (queries + keys) * state)

    def _query_features(self, q: Tensor, features: Map | None = None) -> Tensor:
        features = features or getattr(self.features, "query", self.features)
        with full_precision(q):
            return features(to(work_dtype(q), q))

    def _key_features(self, k: Tensor, mask: Tensor | None, features: Map | None = None) -> Tensor:
        features = features or getattr(self.features, "key", self.features)
        with full_precision(k):
            k = features(to(work_dtype(k), k))
        return k if mask is None else k * mask[:, None, :, None]

    def _project(
        self, q: Tensor, k: Tensor, key_mask: Tensor | None, lengths: Lengths
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Features and positions of a whole sequence."""
        q, k = self._query_features(q), self._key_features(k, key_mask)
        if self.positions is None:
            return q, k, None, None
        lengths = _whole_lengths(q, k, key_mask, lengths)
        pq = self.positions.query(q, span(1, q.shape[-2], q.device).unsqueeze(0), lengths.query)
        if lengths.query is lengths.key and q.shape[-2] == k.shape[-2] and self._fixed:
            return q, k, pq, pq
        return q, k, pq, self.positions.key(k, span(1, k.shape[-2], k.device).unsqueeze(0), lengths.key)

    @property
    def _fixed(self) -> bool:
        """Whether what scores are multiplied by depends on nothing but view, numbers and lengths."""
        return self.positions is None or vars(type(self.positions)).get("fixed", False)  # a subclass says it anew

    def _fixed_factor(self, view: View, q: Tensor, k: Tensor, key_mask: Tensor | None, lengths: Lengths) -> Tensor:
        """What scores are multiplied by, from the layer before where that had the same: short sequences notice."""
        names = (None, None)
        if self.positions is not None and (key_mask is not None or lengths != UNKNOWN):
            lengths = _whole_lengths(q, k, key_mask, lengths)
            names = (Unchanged(lengths.query), Unchanged(lengths.key))
        kind = None if self.positions is None else type(self.positions)
        sizes = (q.shape[-2], k.shape[-2])
        return fixed_factor(kind, view, *sizes, *names, work_dtype(q), q.device, torch.is_inference_mode_enabled())

    def _open(self, state: Tensors, x: Tensor, lengths: Lengths) -> Tensors:
        """Fix the lengths before the first token: positions are baked into the sum, and cannot be changed later."""
        if not self.needs_lengths or "keys" in state:
            return state
        if lengths.query is None or lengths.key is None:
            raise ValueError("this mechanism has positions: give query and key lengths with the first token of a state")
        key, query = (shared(_of_streams, length, x.shape[0]) for length in (lengths.key, lengths.query))
        zeros = shared(_nothing_yet, key)
        return {"keys": zeros, "queries": zeros, "key_length": key, "query_length": query}

    def _close(self, state: Tensors, memory: Tensor, queries: int = 0, keys: int = 0) -> Tensors:
        state = {**state, "memory": memory}
        if self.needs_lengths:
            state["queries"] = shared(_moved_on, state["queries"], queries)
            state["keys"] = shared(_moved_on, state["keys"], keys)
        return state

    def _query_positions(self, state: Tensors, features: Tensor) -> Tensor | None:
        return self._positions(state, features, "query", "queries")

    def _key_positions(self, state: Tensors, features: Tensor) -> Tensor | None:
        return self._positions(state, features, "key", "keys")

    def _positions(self, state: Tensors, features: Tensor, side: str, counter: str) -> Tensor | None:
        """Positions of the next tokens of a stream."""
        if self.positions is None:
            return None
        if not self.needs_lengths:
            return getattr(self.positions, side)(features, None, None)
        count, length = state[counter], state[f"{side}_length"]
        if not torch.compiler.is_compiling() and self._fixed and is_plain(length):
            what = (type(self.positions), Unchanged(length), features.shape[-2], features.dtype)
            return shared(_fixed_positions, count, *what)
        return getattr(self.positions, side)(features, _index(count, features), length)


def _may_be_shared(view: View, q: Tensor, lengths: Lengths) -> bool:
    """Not where changes could go unseen (inference mode counts no versions), nor what a tracer has made."""
    given = [length for length in (lengths.query, lengths.key) if length is not None]
    return not isinstance(view, Prefix) and type(q) is Tensor and all(map(is_plain, given))


def _of_streams(length: Tensor, number: int) -> Tensor:
    return length.expand(number)  # dim 0 is the stream


def _nothing_yet(length: Tensor) -> Tensor:
    return torch.zeros(length.shape, dtype=torch.long, device=length.device)


def _moved_on(count: Tensor, number: int) -> Tensor:
    return count + number


def _fixed_positions(count: Tensor, kind: type, length: Unchanged, number: int, dtype: torch.dtype) -> Tensor:
    features = torch.empty(1, 1, number, 0, dtype=dtype, device=count.device)
    return kind().query(features, _index(count, features), length.tensor)


@lru_cache(maxsize=4)
def fixed_factor(
    kind: type | None,
    view: View,
    queries: int,
    keys: int,
    query_length: Unchanged | None,
    key_length: Unchanged | None,
    dtype: torch.dtype,
    device: torch.device,
    inference: bool,
) -> Tensor | None:
    """Positions of the class ``kind`` times visibility, (.., T, S); remembered, as layers ask for the same in turn.

    Lengths are (B,), and ``None`` what there is; ``inference`` keeps apart what autograd may not see.
    """
    q, k = (torch.empty(1, 1, number, 0, dtype=dtype, device=device) for number in (queries, keys))
    mask = _mask(view, q, k)
    if kind is None:
        return mask
    given = Lengths(*(None if length is None else length.tensor for length in (query_length, key_length)))
    lengths, positions = _whole_lengths(q, k, None, given), kind()
    with full_precision(q):
        return kernels.position_factor(
            positions.query(q, span(1, queries, device).unsqueeze(0), lengths.query),
            positions.key(k, span(1, keys, device).unsqueeze(0), lengths.key),
            mask,
        )


def _index(counter: Tensor, features: Tensor) -> Tensor:
    """(B, N): positions of the next N tokens, from 1 as in the papers."""
    return counter.unsqueeze(-1) + span(1, features.shape[-2], counter.device)


def _whole_lengths(q: Tensor, k: Tensor, key_mask: Tensor | None, given: Lengths) -> Lengths:
    """Lengths of a whole sequence: what was given, else the number of real keys, else of queries."""
    key, query = given.key, given.query
    if key is None:
        key = torch.full((1,), k.shape[-2], device=k.device) if key_mask is None else key_mask.sum(-1)
    if query is None:
        query = key if q.shape[-2] == k.shape[-2] else torch.full((1,), q.shape[-2], device=q.device)
    return Lengths(query, key)


def _mask(view: View, q: Tensor, k: Tensor) -> Tensor | None:
    if isinstance(view, Full):
        return None
    if isinstance(view, Causal):  # as below, in fewer operations
        return q.new_ones(q.shape[-2], k.shape[-2]).tril_()
    return view.visible(span(0, q.shape[-2], q.device), span(0, k.shape[-2], k.device))


def check_view(view: View, q: Tensor, k: Tensor) -> None:
    """Refuse in every form what one of the forms cannot give."""
    if isinstance(view, Prefix):
        view.check(q.shape[0], q.shape[-2])
    if not isinstance(view, Causal | Blocks):
        return
    if view.reach is not None:
        raise ValueError(
            f"a linear mechanism cannot forget, so it cannot follow {view}: use softmax or drop the window"
        )
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(f"{view} needs as many queries as keys, but has {q.shape[-2]} and {k.shape[-2]}")
