"""Measure which decoder layer and heads align tokens with speech, as AlignAtt and EDAtt need it.

Both policies wait with a token that attends to the end of the audio, because more audio may change it. For recordings
of a dev set it is known which tokens do change: the final translation is decoded again from the audio of each segment.
A head aligns well if the tokens that change attend near the end of the audio, and those that stay do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mla_fairseq.streaming.checks import check_scores
from mla_fairseq.streaming.offline import OfflineSession
from mla_fairseq.streaming.offline_policies import OfflinePolicy
from mla_fairseq.streaming.search import GREEDY, SearchOptions
from mla_fairseq.streaming.translator import Translator


@dataclass(frozen=True)
class Alignment:
    """How well the mean weights of some heads align.

    Attributes:
        layer: decoder layer, from 0.
        heads: heads of that layer, from 0.
        separation: probability that a token that stays attends farther from the end of the audio than one that more
            audio changes; 0.5 is chance.
    """

    layer: int
    heads: list[int]
    separation: float


class AlignmentMeter:
    """Measure the alignment of each head, and of all heads of each layer, on recordings.

    Args:
        translator: the model.
        segment: samples that arrive at once.
        skip_last, skip_first: as in ``AttentionPolicy``.
        options: limits and target language.

    Raises:
        ValueError: the model has monotonic attention, the options do not suit it, or they have a CTC weight.
    """

    def __init__(
        self,
        translator: Translator,
        segment: int = 4480,
        skip_last: int = 1,
        skip_first: int = 0,
        options: SearchOptions = GREEDY,
    ) -> None:
        if options.ctc_weight:
            raise ValueError(f"alignment is that of attention alone: leave out ctc_weight ({options.ctc_weight})")
        self.fresh = OfflineSession(translator, OfflinePolicy(), options)
        self.translator, self.segment = translator, segment
        self.first, self.last = skip_first, skip_last
        layers, heads = translator.attention
        every = [list(range(heads)), *([[head] for head in range(heads)] if heads > 1 else [])]
        self.choices = [(layer, chosen) for layer in range(layers) for chosen in every]
        self.stay: list[NDArray] = []  # distances from the end of the audio, (tokens, choices)
        self.change: list[NDArray] = []

    def add(self, samples: NDArray) -> None:
        """Measure the tokens of one recording (N,) at 16 kHz.

        Raises:
            ValueError: the samples are not one channel of speech.
        """
        whole = self.fresh.snapshot()
        whole.push(samples, final=True)
        for weights, changed in self._observe(samples, whole.committed) if whole.committed else ():
            distances = self._distances(weights)
            self.stay.append(distances[:-1] if changed else distances)
            self.change.append(distances[-1:] if changed else distances[:0])

    def ranking(self) -> list[Alignment]:
        """Return the choices, the best first.

        Raises:
            ValueError: no token of the recordings changes as audio arrives, or none stays.
        """
        stay, change = (np.concatenate(found or [np.zeros((0, 1))]) for found in (self.stay, self.change))
        if not (len(stay) and len(change)):
            raise ValueError(
                f"alignment cannot be measured on recordings in which {len(stay)} tokens stay and {len(change)} change "
                "as audio arrives: give more recordings, or shorter segments"
            )
        found = [Alignment(*choice, separation(stay[:, i], change[:, i])) for i, choice in enumerate(self.choices)]
        return sorted(found, key=lambda alignment: -alignment.separation)

    def _observe(self, samples: NDArray, tokens: list[int]) -> Iterator[tuple[NDArray, bool]]:
        """Yield, for each segment, all weights of tokens up to the first one that changes, and whether one does."""
        model, source = self.translator, self.translator.begin_source()
        for start in range(0, len(samples) - self.segment, self.segment):  # after the last one, nothing changes
            source.push(samples[start : start + self.segment])
            if not source.available:
                continue
            decoding = model.redecode(source.states, self.fresh.forced, None, [])
            scores, weights = decoding.attend_all([[model.eos, *self.fresh.forced][-1], *tokens[:-1]])
            check_scores(scores)[:, model.pad] = -np.inf
            best = scores.argmax(-1)
            wrong = np.flatnonzero(best != tokens)
            if not len(wrong):
                yield weights, False
            elif best[wrong[0]] == model.eos:
                yield weights[:, :, : wrong[0]], False  # sessions stop there without a policy
            else:
                yield weights[:, :, : wrong[0] + 1], True

    def _distances(self, weights: NDArray) -> NDArray:
        """Return how far before the last state (tokens, choices) the state with the largest weight is."""
        kept = weights[..., self.first : max(0, weights.shape[-1] - self.last)]
        if not kept.shape[-1]:
            return np.zeros((weights.shape[2], len(self.choices)), int)
        means = np.stack([kept[layer, heads].mean(0) for layer, heads in self.choices], axis=1)
        aligned = np.where(means.any(-1), means.argmax(-1), kept.shape[-1] - 1)  # without weight: as the policies
        return kept.shape[-1] - 1 - aligned


def separation(stay: NDArray, change: NDArray) -> float:
    """Return the probability that one of ``stay`` (N,) is larger than one of ``change`` (M,); equal ones count half.

    This is the area under the ROC curve of a threshold.
    """
    change = np.sort(change)
    twice = np.searchsorted(change, stay, "left") + np.searchsorted(change, stay, "right")
    return float(twice.mean() / (2 * len(change)))
