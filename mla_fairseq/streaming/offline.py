"""Simultaneous translation by a model that was trained on whole utterances: it continues what has gone out, anew at
every piece of audio, and a policy says how much of that may follow.

A chunked encoder goes on where it was; one that hears whole utterances encodes everything anew, which costs more as the
recording goes on. The decoder starts from what has gone out either way, because its cross-attention has new states.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from mla_fairseq.attention import State, fork, reorder
from mla_fairseq.streaming.frontend import FeatureStream
from mla_fairseq.streaming.offline_policies import OfflinePolicy
from mla_fairseq.streaming.search import BeamSearch
from mla_fairseq.streaming.session import Write, check_limits
from mla_fairseq.streaming.translator import Translator
from mla_fairseq.streaming.words import join, whole


class OfflineSession:
    """Simultaneous translation of one recording by an offline model; used as ``Session`` is.

    Args:
        translator: the model.
        policy: how much of a hypothesis may go out.
        beam: hypotheses of the search; policies that look at attention are greedy until the source has ended.
        lenpen: length penalty.
        max_len_a, max_len_b: at most ``a * frames + b`` tokens, frames being those that were heard.
        layer: decoder layer whose cross-attention a policy looks at, from 0; ``None``: the one after the middle.
        heads: heads that are averaged; ``None``: all.

    Raises:
        ValueError: a beam below 1, a layer or head that is not there, or a model with monotonic attention.
    """

    def __init__(
        self,
        translator: Translator,
        policy: OfflinePolicy,
        beam: int = 1,
        lenpen: float = 1.0,
        max_len_a: float = 0.1,
        max_len_b: int = 20,
        layer: int | None = None,
        heads: Sequence[int] | None = None,
    ) -> None:
        decoder = translator.model.decoder
        layers, all_heads = len(decoder.layers), decoder.layers[0].encoder_attn.num_heads
        if beam < 1:
            raise ValueError(f"the beam must be at least 1, but is {beam}")
        check_limits(max_len_a, max_len_b)
        if decoder.monotonic is not None:
            raise ValueError("the heads of this model decide for themselves: take MonotonicAgent")
        if layer is not None and not 0 <= layer < layers:
            raise ValueError(f"--attn-layer must be within 0 and {layers - 1}, but is {layer}")
        if heads is not None and not all(0 <= head < all_heads for head in heads):
            raise ValueError(f"--attn-heads must be within 0 and {all_heads - 1}, but are {list(heads)}")
        self.translator, self.policy, self.beam, self.lenpen = translator, policy, beam, lenpen
        self.max_len_a, self.max_len_b = max_len_a, max_len_b
        self.layer = layers // 2 if layer is None else layer
        self.heads = list(range(all_heads) if heads is None else heads)
        self.features = FeatureStream(translator.normalisation)
        self.encoder_state: State = {}
        channels = translator.model.encoder.channels
        self.states = translator.parameter.new_zeros(0, 1, channels)
        self.frames = translator.parameter.new_zeros(1, 0, translator.normalisation.mean.shape[-1])
        self.heard = 0
        self.committed: list[int] = []
        self.hypotheses: list[list[int]] = []
        if not translator.model.encoder.streams:
            translator.note("this encoder hears whole utterances: it encodes everything anew at each piece of audio")

    @torch.no_grad()
    def push(self, samples, final: bool = False) -> list[Write]:
        """Take the next samples (N,) at 16 kHz, float in [-1, 1] or int16, and return what is written upon them.

        ``final`` ends the recording: then all that is left comes out.

        Raises:
            ValueError: samples that are no speech of one channel; the session is as it was.
            RuntimeError: after the end.
        """
        known = len(self.states)
        self._listen(torch.from_numpy(self.features.push(samples, final)).to(self.translator.parameter), final)
        if len(self.states) == 0 or (len(self.states) == known and not final):
            return []
        if final:
            return self._say(self._search(), ended=True)
        hypothesis, following = self._greedy() if self.policy.attends or self.beam == 1 else (self._search(), None)
        self.hypotheses = [*self.hypotheses, hypothesis][-self.policy.history :]
        allowed = min(self.policy.commits(self.hypotheses, len(self.states)), len(hypothesis))
        seen = hypothesis[:allowed] + ([following] if allowed == len(hypothesis) and following is not None else [])
        seen += hypothesis[allowed : allowed + 1]
        upto = min(allowed, whole([self._piece(token) for token in seen]))
        return self._say(hypothesis[: max(upto, len(self.committed))], ended=False)

    def finish(self) -> list[Write]:
        """End the recording and return what is left to say."""
        return self.push([], final=True)

    def snapshot(self) -> OfflineSession:
        """A copy that goes its own way from here: going back is keeping the copy. Copies no tensor."""
        other = copy.copy(self)
        other.features = self.features.fork()
        other.encoder_state = fork(self.encoder_state)
        return other

    def restore(self, snapshot: OfflineSession) -> None:
        """Be again what ``snapshot`` was; it can be returned to once more."""
        self.__dict__.update(snapshot.snapshot().__dict__)

    @property
    def nbytes(self) -> int:
        """Bytes that the session carries from one piece of audio to the next."""
        return self.states.nbytes + self.frames.nbytes

    def _listen(self, frames: Tensor, final: bool) -> None:
        encoder = self.translator.model.encoder
        self.heard += len(frames)
        frames = frames.unsqueeze(0)
        if encoder.streams:
            if frames.shape[1] or final:
                self.states = torch.cat((self.states, encoder.stream(frames, self.encoder_state, final)))
            return
        self.frames = torch.cat((self.frames, frames), dim=1)
        if frames.shape[1]:
            length = torch.tensor([self.frames.shape[1]], device=frames.device)
            self.states = encoder(self.frames, length)["encoder_out"][0]

    def _greedy(self) -> tuple[list[int], int | None]:
        """What has gone out, until the policy refuses, the sentence ends or is too long; and what was refused."""
        attempt, dictionary = Attempt(self), self.translator.dictionary
        tokens = list(self.committed)
        attempt.force(tokens)
        while len(tokens) < self._longest():
            scores, attention = attempt.look([dictionary.eos(), *tokens][-1])
            scores[dictionary.pad()] = -torch.inf
            token = int(scores.argmax())
            if token == dictionary.eos():
                return tokens, token
            if self.policy.refuses(len(tokens), attention, len(self.states)):
                return tokens, token
            tokens.append(token)
        return tokens, None

    def _search(self) -> list[int]:
        """What has gone out, continued to the end by beam search."""
        attempt, dictionary = Attempt(self), self.translator.dictionary
        symbols = (dictionary.eos(), dictionary.pad(), dictionary.unk())
        search = BeamSearch(self.beam, self.lenpen, *symbols)
        search.tokens = torch.tensor([[dictionary.eos(), *self.committed]])
        attempt.force(self.committed)
        while not search.ended:
            search.step(attempt, len(self.states), self._longest, tail=True)
        return search.best

    def _longest(self) -> int:
        return max(1, int(self.max_len_a * self.heard + self.max_len_b), len(self.committed))

    def _say(self, tokens: list[int], ended: bool) -> list[Write]:
        text = join(self._piece(token) for token in tokens[len(self.committed) :])
        self.committed = tokens
        return [Write(text, len(self.states), ended)] if text or ended else []

    def _piece(self, token: int) -> str:
        return self.translator.dictionary[token]


class Attempt:
    """The decoder over the states that are there now; to a search it is a stream."""

    forced = False

    def __init__(self, session: OfflineSession) -> None:
        self.session, self.translator = session, session.translator
        self.state: State = {}
        self.written = 0
        decoder, states = session.translator.model.decoder, session.states
        self.expected = decoder.expect_length(states, None, torch.tensor([len(states)], device=states.device))
        attention = decoder.layers[session.layer].encoder_attn
        self.keys = attention.keys(session.states) if session.policy.attends else None

    def force(self, tokens: Sequence[int]) -> None:
        """Let these be said, after the sign that begins a sentence; the last one is the next to be given."""
        if tokens:
            self._step(torch.tensor([[self.translator.dictionary.eos(), *tokens[:-1]]]), probe=False)

    def look(self, token: int) -> tuple[Tensor, list[float]]:
        """Scores (V,) of what follows, and how the chosen heads attend to the states."""
        scores, weights = self._step(torch.tensor([[token]]), probe=self.keys is not None)
        return scores[0], [] if weights is None else weights[0, self.session.heads].mean(0).tolist()

    def step(self, tokens: Tensor, upto: int) -> Tensor:
        """Log-probabilities (B, V) of what follows ``tokens`` (B,)."""
        return self._step(tokens.unsqueeze(1), probe=False)[0].float().log_softmax(-1)

    def keep(self, hypotheses: Tensor) -> None:
        """Let hypothesis ``hypotheses[i]`` (int64) go on at place i; all others end."""
        reorder(self.state, hypotheses)

    def _step(self, tokens: Tensor, probe: bool) -> tuple[Tensor, Tensor | None]:
        states = self.session.states
        lengths = torch.full((len(tokens),), len(states), device=states.device)
        source = states.expand(-1, len(tokens), -1) if self.written == 0 else None
        found = self.translator.model.decoder.step_over(
            tokens.to(states.device),
            self.written,
            source,
            self.state,
            lengths,
            None if self.expected is None else self.expected.expand(len(tokens)),
            (self.session.layer, self.keys) if probe else None,
        )
        self.written += tokens.shape[1]
        return found
