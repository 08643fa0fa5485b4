"""Sessions of models trained to translate simultaneously: each token is decoded once, from a state of the decoder.

Imports no torch.
"""

from __future__ import annotations

from typing import Self

from mla_fairseq.streaming.interface import StreamingModel
from mla_fairseq.streaming.policies import READ, Decision, Policy, Progress, WaitKPolicy
from mla_fairseq.streaming.search import GREEDY, SearchOptions
from mla_fairseq.streaming.session import Emission, Session
from mla_fairseq.streaming.words import whole


class IncrementalSession(Session):
    """A session under wait-k or monotonic attention.

    At each push, the policy is asked for one token after another until it returns ``READ``. The whole words of the best
    hypothesis are then final and emitted; other hypotheses of the beam that disagree with them are dropped. After the
    end of the source, the rest of the sentence is searched as in ``fairseq-generate``. The output does not depend on
    how the audio is split into segments, and no word depends on audio that has not arrived.

    A sentence has at most ``max_len_a * frames + max_len_b`` tokens, where ``frames`` counts the filter-bank frames
    that its last token may depend on. Once the model has ended it, the rest of the audio is not translated; a
    ``LongSession`` translates recordings of several sentences.

    Args:
        translator: a model with a chunked encoder.
        policy: decides whether to read more source (``READ``) or to emit a token (``Decision(n)``). A ``WaitKPolicy``
            without a ratio gets that of the model.
        options: beam and limits.

    Attributes:
        hypotheses: decoder state of the sentence.
        search: beam search of the sentence.

    Raises:
        ValueError: the encoder cannot stream, the policy is for another session class, type of model or ratio, or an
            argument has another type.
    """

    policy_class = Policy
    policy: Policy

    def __init__(self, translator: StreamingModel, policy: Policy, options: SearchOptions = GREEDY) -> None:
        super().__init__(translator, policy, options)
        if not translator.streams:
            raise ValueError(
                "this model has a full-context encoder: train one with --encoder-chunk-size, or use OfflineSession"
            )
        if policy.monotonic not in (None, translator.monotonic):
            has, suitable = ("has", "MonotonicPolicy") if translator.monotonic else ("has no", "WaitKPolicy")
            raise ValueError(f"this model {has} monotonic attention ({policy}): use {suitable}")
        if isinstance(policy, WaitKPolicy):
            self.policy = policy.for_model(translator.wait_k.ratio if translator.wait_k else None)
        self.hypotheses, self.search = translator.begin_sentence(options.ctc_weight), self._search()

    def snapshot(self) -> Self:
        """Return an independent copy for ``restore``. Copies no tensor."""
        other = super().snapshot()
        other.hypotheses, other.search = self.hypotheses.fork(), self.search.fork()
        return other

    @property
    def nbytes(self) -> int:
        """Return the bytes of tensors and samples kept from one push to the next."""
        return super().nbytes + self.hypotheses.nbytes

    def _decode(self) -> list[Emission]:
        emissions = []
        while not self.search.ended:
            states, at_end = self._ask()
            last = self.search.tokens[:, -1]
            scores = self.hypotheses.step(last, self.source, states, at_end) if states else None
            if scores is None:
                break
            longest = self.options.longest(self._last_frame(at_end))  # the same however the audio is split
            self.hypotheses.keep(self.search.extend(scores, longest, at_end or self.hypotheses.at_end))
            emissions += self._commit_words()
        if self.search.ended:
            self.source.discard()
        return emissions

    def _ask(self) -> tuple[int, bool]:
        """Ask the policy about the next token.

        Returns:
            The number of encoder states that the token may read, 0 if it waits, and whether it may read them only
            because the source has ended (the policy returned ``READ``).
        """
        available = self.source.available
        states = self._decide(available).states
        return (states, False) if states or not self.source.ended else (available, True)

    def _decide(self, available: int) -> Decision:
        """Return the decision of the policy after checking it."""
        # a forced token is decoded as soon as the first real one may be
        decision = self.policy.decide(Progress(available, max(0, self.hypotheses.decoded - len(self.forced))))
        if not isinstance(decision, Decision):
            raise ValueError(f"{self.policy} returned something other than a Decision ({decision!r}): use Decision(N)")
        read = self.hypotheses.states_read(self.source)
        if decision != READ and not read <= decision.states <= available:
            raise ValueError(
                f"{self.policy} lets a token read encoder states that are not available, or fewer than were read "
                f"before ({decision.states}): use {read} to {available}, or READ"
            )
        return decision

    def _last_frame(self, at_end: bool) -> int:
        """Return the number of frames that the last token may depend on; all frames ``at_end``."""
        if at_end:
            return self.source.frames
        return min(self.source.frames, self.translator.frames_before(self.source.taken))

    def _commit_words(self) -> list[Emission]:
        """Commit the whole words of the best hypothesis; after the end of the source, only the finished sentence."""
        search = self.search
        if search.ended:
            return self._commit(search.best, sentence_ended=True)
        if search.at_end:
            return []
        stable = search.best[: whole(self.translator.pieces(search.best))]
        self.hypotheses.keep(search.prune(len(stable)))  # no remaining hypothesis contradicts the emitted words
        return self._commit(stable)
