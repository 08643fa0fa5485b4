"""Sessions of models trained on whole utterances: at each segment they re-decode from all audio so far.

Decoding continues the tokens already committed, and a policy commits a stable prefix of the new hypothesis. A chunked
encoder encodes only the new chunks; a full-context encoder encodes all audio again, so its cost per segment grows with
the recording. The decoder starts from an empty state in both cases, because cross-attention reads new encoder states.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mla_fairseq.streaming.checks import check_scores, is_integer
from mla_fairseq.streaming.interface import Redecoding, StreamingModel
from mla_fairseq.streaming.offline_policies import OfflinePolicy
from mla_fairseq.streaming.search import GREEDY, SearchOptions
from mla_fairseq.streaming.session import Emission, Session
from mla_fairseq.streaming.words import whole


class OfflineSession(Session):
    """A session under AlignAtt, EDAtt, local agreement, hold-n or offline wait-k.

    Each push with new encoder states re-decodes the sentence. The policy decides which prefix is stable; the whole
    words in it are final and emitted. The last push emits the rest. A recording is one sentence, of at most
    ``max_len_a * frames + max_len_b`` tokens, where ``frames`` counts all filter-bank frames so far.

    Args:
        translator: the model; its encoder may be chunked or full-context.
        policy: decides how much of a hypothesis is committed.
        options: beam and limits; policies that use attention decode greedily until the source has ended.
        layer: decoder layer whose cross-attention weights the policy uses, from 0; ``None``: the one after the middle.
        heads: heads to average; ``None``: all.

    Attributes:
        recent: the newest hypotheses, as many as the policy compares, with the committed tokens.

    Raises:
        ValueError: a layer or head is no integer or does not exist, ``heads`` is empty, the policy is for
            another session class, or the model has monotonic attention.
    """

    policy_class = OfflinePolicy
    settings = (*Session.settings, "layer", "heads")
    policy: OfflinePolicy

    def __init__(
        self,
        translator: StreamingModel,
        policy: OfflinePolicy,
        options: SearchOptions = GREEDY,
        layer: int | None = None,
        heads: Sequence[int] | None = None,
    ) -> None:
        super().__init__(translator, policy, options)
        layers, all_heads = translator.attention
        if translator.monotonic:
            raise ValueError(
                "this model has monotonic attention, whose heads decide when to emit: use IncrementalSession with "
                "MonotonicPolicy"
            )
        if not layers and (policy.uses_attention or layer is not None or heads is not None):
            raise ValueError(
                f"an exported model has no attention weights ({policy}): use WaitKPolicy, HoldPolicy or "
                "LocalAgreementPolicy, without layer and heads"
            )
        if layer is not None and not (is_integer(layer, 0) and layer < layers):
            raise ValueError(f"layer must be an integer within 0 and {layers - 1}, but is {layer!r}")
        chosen = list(range(all_heads) if heads is None else heads if isinstance(heads, Iterable) else [])
        if layers and not (chosen and all(is_integer(head, 0) and head < all_heads for head in chosen)):
            raise ValueError(f"heads must be a list of integers within 0 and {all_heads - 1}, but is {heads!r}")
        self.layer, self.heads = layers // 2 if layer is None else layer, chosen
        self.recent: list[list[int]] = []
        if not translator.streams:
            translator.log_once("this model has a full-context encoder: each segment encodes all audio again")

    def _decode(self) -> list[Emission]:
        if not self.source.available:
            return []
        if self.source.ended:
            return self._commit(self._beam(), sentence_ended=True)
        greedy = self.policy.uses_attention or self.options.beam == 1
        hypothesis, following = self._greedy() if greedy else (self._beam(), None)
        return self._commit(self._stable(hypothesis, following))

    def _stable(self, hypothesis: list[int], following: int | None) -> list[int]:
        """Return the tokens to commit: stable whole words; ``following`` is the token after ``hypothesis``."""
        self.recent = [*self.recent, hypothesis][-self.policy.history :]
        stable = min(self.policy.stable_prefix(self.recent, self.source.available), len(hypothesis))
        known = hypothesis[: stable + 1]
        if stable == len(hypothesis) and following is not None:
            known = [*hypothesis, following]  # it is not committed, but shows whether the last word is whole
        stable = min(stable, whole(self.translator.pieces(known)))
        return hypothesis[: max(stable, len(self.committed))]

    def _greedy(self) -> tuple[list[int], int | None]:
        """Continue the committed tokens greedily until the policy stops, the sentence ends or the limit is reached.

        Returns:
            The hypothesis and the token after it, which was not added; ``None`` at the limit.
        """
        model, tokens = self.translator, list(self.committed)
        decoding = self._redecode([*self.forced, *self.committed], self.policy.uses_attention)
        while len(tokens) < self._longest():
            scores, attention = decoding.attend([model.eos, *self.forced, *tokens][-1])
            check_scores(scores)[model.pad] = -np.inf
            token = int(scores.argmax())
            if token == model.eos or self.policy.stops(len(tokens), attention, self.source.available):
                return tokens, token
            tokens.append(token)
        return tokens, None

    def _beam(self) -> list[int]:
        """Continue the committed tokens to the end of the sentence by beam search."""
        # forced tokens are searched, unless committed ones come after them
        decoding, search = self._redecode([*self.forced, *self.committed] if self.committed else []), self._search()
        while not search.ended:
            scores = decoding.step(search.tokens[:, -1])
            decoding.keep(search.extend(scores, self._longest(), at_end=True))
        return search.best

    def _redecode(self, tokens: Sequence[int], uses_attention: bool = False) -> Redecoding:
        layer, source = self.layer if uses_attention else None, self.source
        weight = self.options.ctc_weight
        return self.translator.redecode(source.states, tokens, layer, self.heads, weight, source.ended)

    def _longest(self) -> int:
        return max(self.options.longest(self.source.frames), len(self.committed))
