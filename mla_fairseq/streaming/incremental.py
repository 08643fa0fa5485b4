"""Sessions of models trained to translate simultaneously: the decoder's state is carried from token to token."""

from __future__ import annotations

import copy

from torch import Tensor

from mla_fairseq.attention import State, fork, nbytes, reorder
from mla_fairseq.streaming.policies import READ, Decision, Policy, Progress
from mla_fairseq.streaming.search import GREEDY, SearchOptions
from mla_fairseq.streaming.session import Emission, Session
from mla_fairseq.streaming.source import Source
from mla_fairseq.streaming.translator import Translator
from mla_fairseq.streaming.words import whole


class IncrementalSession(Session):
    """A session under wait-k or monotonic attention.

    While the source goes on, the hypotheses of a beam differ only in the unfinished word: the whole words of the best
    one are emitted, and hypotheses that disagree are dropped. After its end, the rest of the sentence is searched as
    ``fairseq-generate`` does. A sentence has at most ``max_len_a * frames + max_len_b`` tokens, where ``frames`` are
    those before the encoder states that its last token reads: the same for any chunking of the audio.

    Args:
        translator: a model with a chunked encoder.
        policy: when to READ and when to WRITE.
        options: beam and limits.
        continuous: start another sentence after the model has ended one; otherwise the rest of the audio is not
            translated. The next sentence starts with the encoder states that were not read, so words that begin before
            the last ones were emitted are lost: this suits recordings with a pause between sentences. A model trained
            on single sentences has never seen what it carries by then, and gets worse after the first ones: train it
            on longer recordings, or start a session at every pause.

    Raises:
        ValueError: an encoder that cannot stream, or a policy for another session or type of model.
    """

    policy_class = Policy

    def __init__(
        self, translator: Translator, policy: Policy, options: SearchOptions = GREEDY, continuous: bool = False
    ) -> None:
        super().__init__(translator, policy, options)
        if not translator.model.encoder.streams:
            raise ValueError(
                "this model has a full-context encoder: train one with --encoder-chunk-size, or use an agent for "
                "offline models, such as AlignAttAgent"
            )
        monotonic = translator.model.decoder.monotonic is not None
        if policy.monotonic not in (None, monotonic):
            attention, fit = ("has", "MonotonicPolicy") if monotonic else ("has no", "WaitKPolicy")
            raise ValueError(f"this model {attention} monotonic attention ({policy}): use {fit}")
        self.continuous = continuous
        self._begin_sentence(0)

    def snapshot(self) -> IncrementalSession:
        """Return an independent copy, to go back to with ``restore``. Copies no tensor."""
        other = super().snapshot()
        other.hypotheses, other.search = self.hypotheses.fork(), self.search.fork()
        return other

    @property
    def nbytes(self) -> int:
        """Return the bytes carried from one push to the next."""
        return super().nbytes + nbytes(self.hypotheses.state)

    def _begin_sentence(self, frame: int) -> None:
        """Start a sentence at a frame, with the first encoder state not taken."""
        self.first_frame, self.committed = frame, []
        self.hypotheses, self.search = Hypotheses(self.source), self._search()

    def _decode(self) -> list[Emission]:
        emissions = []
        while not self.search.ended:
            states, at_end = self._ask()
            log_probs = self.hypotheses.step(self.search.tokens[:, -1], self.source, states) if states else None
            if log_probs is None:
                break
            frame = self._last_frame(at_end)
            longest = self.options.longest(frame - self.first_frame)
            self.hypotheses.keep(self.search.extend(log_probs, longest, at_end or self.hypotheses.forced))
            emissions += self._commit_words()
            if self.search.ended and self.continuous:
                self._begin_sentence(frame)
        if self.search.ended:
            self.source.discard()
        return emissions

    def _ask(self) -> tuple[int, bool]:
        """Ask the policy its one question.

        Returns the encoder states that the next token may read, 0 for none, and whether only the end of the source
        allows it to: the policy would still READ.
        """
        available = self.source.available - self.hypotheses.start
        states = self._decide(available).states
        return (states, False) if states or not self.source.ended else (available, True)

    def _decide(self, available: int) -> Decision:
        """Return the policy's decision, checked."""
        decision = self.policy.decide(Progress(available, self.hypotheses.tokens))
        if not isinstance(decision, Decision):
            raise ValueError(f"{self.policy} decided on something else than a Decision ({decision!r}): use Decision(N)")
        read = self.hypotheses.read(self.source)
        if decision != READ and not read <= decision.states <= available:
            raise ValueError(
                f"{self.policy} lets a token read encoder states that are not available or fewer than are read "
                f"({decision.states}): use {read} to {available}, or READ"
            )
        return decision

    def _last_frame(self, at_end: bool) -> int:
        """Return the frames that the last token depends on: all at the end, else those before the states taken."""
        if at_end:
            return self.source.frames
        return min(self.source.frames, self.translator.model.encoder.frames_before(self.source.taken))

    def _commit_words(self) -> list[Emission]:
        """Commit the whole words of the best hypothesis; in the tail only whole sentences."""
        search = self.search
        if search.ended:
            return self._commit(search.best, sentence_ended=True)
        if search.tail:
            return []
        stable = search.best[: whole(self.translator.pieces(search.best))]
        self.hypotheses.keep(search.prune(len(stable)))
        return self._commit(stable)


class Hypotheses:
    """The decoder's side of one sentence: its state, of which dim 0 is the hypothesis.

    Attributes:
        start: encoder states that earlier sentences took.
        state: the decoder's state; replaced, never changed in place.
        tokens: tokens decoded.
        fed, fed_all: encoder states given to monotonic heads, from the start of the recording, and whether the heads
            know that no more will follow.
        waiting: whether the heads need more states than these.
        forced: whether the last token was decoded only because no more states will follow.
    """

    def __init__(self, source: Source) -> None:
        self.decoder = source.translator.model.decoder
        self.start = self.fed = source.taken
        self.state: State = {}
        self.tokens, self.size = 0, 1
        self.fed_all = self.waiting = self.forced = False

    def read(self, source: Source) -> int:
        """Return how many of the sentence's encoder states the decoder has been given."""
        return max(self.fed, source.taken) - self.start

    def step(self, tokens: Tensor, source: Source, states: int) -> Tensor | None:
        """Return log-probabilities (B, V) of what follows ``tokens`` (B,), from the sentence's first ``states`` states.

        Monotonic heads take as many of them as they need. ``None``: they need more, and nothing has changed.
        """
        tokens, upto = tokens.to(source.states.device).unsqueeze(1), self.start + states
        if self.decoder.monotonic:
            scores = self._attempt(tokens, source, upto)
            if scores is None:
                return None
        else:
            new = source.take(upto).expand(-1, len(tokens), -1)
            scores = self.decoder.step(tokens, new if len(new) else None, self.state)
        self.tokens += 1
        return scores.float().log_softmax(-1)

    def _attempt(self, tokens: Tensor, source: Source, upto: int) -> Tensor | None:
        """Do ``step`` with monotonic heads: the states they are fed are taken only once they have read them."""
        new = source.states[self.fed - source.taken : upto - source.taken]
        if len(new) or source.ended > self.fed_all:
            self.decoder.feed(new.expand(-1, len(tokens), -1), self.state, source.ended)
            self.fed, self.fed_all, self.waiting = self.fed + len(new), source.ended, False
        if self.waiting:
            return None
        before = fork(self.state)
        scores, seen, wants = self.decoder.attempt(tokens, self.state)
        self.forced = bool(wants.any())
        if self.forced and not self.fed_all:
            self.state, self.waiting = before, True
            return None
        source.take(self.start + int(seen.max()))
        return scores

    def keep(self, parents: Tensor) -> None:
        """Let hypothesis ``parents[i]`` (int64) continue at place i; all others end."""
        if parents.tolist() != list(range(self.size)):  # a greedy search never moves its state
            reorder(self.state, parents)
        self.size = len(parents)

    def fork(self) -> Hypotheses:
        """Return an independent copy. Copies no tensor."""
        other = copy.copy(self)
        other.state = fork(self.state)
        return other
