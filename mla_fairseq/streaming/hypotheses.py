"""The decoder state of a sentence, and decodings from scratch, of models in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from mla_fairseq.attention import State, fork, nbytes, reorder
from mla_fairseq.models.decoder import TextDecoder
from mla_fairseq.streaming.interface import Hypotheses, Redecoding
from mla_fairseq.streaming.joint import JointScores
from mla_fairseq.streaming.source import EncoderSource


class DecoderHypotheses(Hypotheses):
    """The decoder state of one sentence in PyTorch; dim 0 of its tensors is the hypothesis.

    Args:
        decoder: the decoder of the model.
        joint: adds CTC prefix scores to those of attention; ``None``: attention alone.

    Attributes:
        state: the decoder's state; replaced, never changed in place.
        size: number of hypotheses.
        fed: number of encoder states given to monotonic heads, counted from the start of the recording.
        fed_all: whether the heads know that no more states will follow.
        waiting: whether the heads need more states than they were given.
    """

    def __init__(self, decoder: TextDecoder, joint: JointScores | None = None) -> None:
        self.decoder, self.joint = decoder, joint
        self.state: State = {}
        self.fed, self.decoded, self.size = 0, 0, 1
        self.fed_all = self.waiting = self.at_end = False

    @property
    def nbytes(self) -> int:
        """Return the bytes of the state."""
        return nbytes(self.state) + (self.joint.nbytes if self.joint else 0)

    def states_read(self, source: EncoderSource) -> int:
        """Return how many encoder states of the sentence the decoder was given."""
        return max(self.fed, source.taken)

    @torch.no_grad()
    def step(self, tokens: NDArray, source: EncoderSource, states: int, at_end: bool) -> NDArray | None:
        """Return scores (B, V) of the tokens after ``tokens`` (B,), given the first ``states`` states.

        Monotonic heads read as many of these encoder states of the sentence as they need. If they need more, return
        ``None`` and decode nothing.
        """
        last = torch.from_numpy(tokens).to(source.states.device).unsqueeze(1)
        if self.decoder.monotonic:
            scores = self._attempt(last, source, states)
            if scores is None:
                return None
        else:
            new = self._take(source, states).expand(-1, len(last), -1)
            scores = self.decoder.step(last, new if len(new) else None, self.state)
        self.decoded += 1
        # monotonic heads know by themselves whether they have read all states
        return joint_scores(scores, tokens, self.joint, self.at_end if self.decoder.monotonic else at_end)

    def _take(self, source: EncoderSource, upto: int) -> Tensor:
        """Take encoder states; CTC reads what is taken."""
        new = source.take(upto)
        if self.joint:
            self.joint.hear(new)
        return new

    def _attempt(self, tokens: Tensor, source: EncoderSource, upto: int) -> Tensor | None:
        """Return scores (B, V) of a step with monotonic heads; take only the encoder states that they have read."""
        new = source.states[self.fed - source.taken : upto - source.taken]
        if len(new) or source.ended > self.fed_all:
            self.decoder.feed(new.expand(-1, len(tokens), -1), self.state, source.ended)
            self.fed, self.fed_all, self.waiting = self.fed + len(new), source.ended, False
        if self.waiting:
            return None
        before = fork(self.state)
        scores, seen, waits = self.decoder.attempt(tokens, self.state)
        self.at_end = bool(waits.any())
        if self.at_end and not self.fed_all:  # more states may follow: undo the attempt
            self.state, self.waiting = before, True
            return None
        self._take(source, int(seen.max()))
        return scores

    def keep(self, parents: NDArray) -> None:
        """Continue hypothesis ``parents[i]`` (int64) at index i; drop all others."""
        if parents.tolist() != list(range(self.size)):  # greedy search never copies its state
            reorder(self.state, torch.from_numpy(parents))
            if self.joint:
                self.joint.keep(torch.from_numpy(parents))
        self.size = len(parents)

    def fork(self) -> Self:
        """Return an independent copy. Copies no tensor."""
        other = copy.copy(self)
        other.state, other.joint = fork(self.state), self.joint and self.joint.fork()
        return other


class DecoderRedecoding(Redecoding):
    """One decoding of a sentence from all encoder states available, after the tokens that are given.

    Args:
        decoder: the decoder of the model.
        states: (S, 1, C), encoder states.
        given: ``eos`` and the tokens forced and committed so far; the last one is the input of the next step.
        layer: decoder layer whose cross-attention weights ``attend`` returns; ``None``: no weights.
        heads: heads to average.
        joint: adds CTC prefix scores to those of attention; ``None``: attention alone.
        ended: whether no more states will follow.

    Attributes:
        state: the decoder's state.
        decoded: number of tokens decoded.
        expected: (1,), target tokens that the model expects; ``None`` if no mechanism needs lengths.
    """

    def __init__(
        self,
        decoder: Any,
        states: Tensor,
        given: Sequence[int],
        layer: int | None,
        heads: Sequence[int],
        joint: JointScores | None = None,
        ended: bool = False,
    ) -> None:
        self.decoder, self.states, self.heads, self.joint, self.ended = decoder, states, heads, joint, ended
        self.state: State = {}
        self.decoded = 0
        self.expected = self.decoder.expect_length(states, None, torch.tensor([len(states)], device=states.device))
        self.probes = {} if layer is None else self._keys([layer])
        if joint:
            joint.hear(states)
        if len(given) > 1:  # one call for all of them
            tokens = torch.tensor(given[:-1])
            features, _ = self._step(tokens.unsqueeze(0))
            if joint:
                joint.follow(tokens, self.decoder.output_layer(features[0]).float().log_softmax(-1))

    @torch.no_grad()
    def attend(self, token: int) -> tuple[NDArray, list[float]]:
        """Return scores (V,) of the token after ``token``, and the mean weights of the heads over the states."""
        features, weights = self._step(torch.tensor([[token]]), self.probes)
        scores = self.decoder.output_layer(features[0, -1]).float()
        if self.joint:
            scores = self.joint.step(torch.tensor([token]), scores.unsqueeze(0).log_softmax(-1), self.ended)[0]
        return scores.cpu().numpy(), weights[0][0, self.heads, -1].mean(0).tolist() if weights else []

    @torch.no_grad()
    def attend_all(self, tokens: Sequence[int]) -> tuple[NDArray, NDArray]:
        """Return scores (T, V) of the token after each of ``tokens``, and all weights (layers, H, T, S)."""
        features, weights = self._step(torch.tensor([tokens]), self._keys(range(len(self.decoder.layers))))
        return self.decoder.output_layer(features[0]).float().cpu().numpy(), torch.cat(weights).float().cpu().numpy()

    @torch.no_grad()
    def step(self, tokens: NDArray) -> NDArray:
        """Return scores (B, V) of the tokens after ``tokens`` (B,)."""
        features, _ = self._step(torch.from_numpy(tokens).unsqueeze(1))
        return joint_scores(self.decoder.output_layer(features[:, -1]), tokens, self.joint, self.ended)

    def keep(self, parents: NDArray) -> None:
        """Continue hypothesis ``parents[i]`` (int64) at index i; drop all others."""
        reorder(self.state, torch.from_numpy(parents))
        if self.joint:
            self.joint.keep(torch.from_numpy(parents))

    def _keys(self, layers: Iterable[int]) -> dict[int, Tensor]:
        """Return the keys (1, H, S, d) of the cross-attention of layers."""
        return {layer: self.decoder.layers[layer].encoder_attn.keys(self.states) for layer in layers}

    @torch.no_grad()
    def _step(self, tokens: Tensor, probes: Mapping[int, Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return features (B, T, C) of ``tokens`` (B, T), and weights (B, H, T, S) of each probed layer."""
        size, device = len(tokens), self.states.device
        found = self.decoder.step_over(
            tokens.to(device),
            self.states.expand(-1, size, -1) if self.decoded == 0 else None,
            self.state,
            torch.full((size,), len(self.states), device=device),
            None if self.expected is None else self.expected.expand(size),
            probes,
        )
        self.decoded += tokens.shape[1]
        return found


def joint_scores(logits: Tensor, tokens: NDArray, joint: JointScores | None, ended: bool) -> NDArray:
    """Return scores (B, V) of the tokens after ``tokens`` (B,), given the ``logits`` (B, V) of the decoder.

    ``ended``: no more encoder states will follow those that were read.
    """
    scores = logits.float().log_softmax(-1)
    return (joint.step(torch.from_numpy(tokens), scores, ended) if joint else scores).cpu().numpy()
