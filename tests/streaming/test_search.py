"""Beam search within a policy, on given scores."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mla_fairseq.streaming import Translator
from mla_fairseq.streaming.interface import StreamingModel
from mla_fairseq.streaming.search import BeamSearch, SearchOptions

EOS, PAD, A, B, C = 2, 1, 4, 5, 6
Follow = dict[int, dict[int, float]]


def log_probs(search: BeamSearch, follow: Follow) -> NDArray:
    """Return log-probabilities that depend on the last token alone; unknown tokens end the sentence."""
    scores = np.full((len(search.tokens), 7), 1e-9, np.float32)
    for i, token in enumerate(search.tokens[:, -1].tolist()):
        for after, probability in follow.get(token, {EOS: 1.0}).items():
            scores[i, after] = probability
    return np.log(scores)


def begin(beam: int = 2, lenpen: float = 1.0) -> BeamSearch:
    return BeamSearch(SearchOptions(beam, lenpen), EOS, PAD, Translator.places)


def extend(search: BeamSearch, follow: Follow, at_end: bool) -> list[int]:
    return search.extend(log_probs(search, follow), 10, at_end).tolist()


def test_hypotheses_that_disagree_with_the_prefix_are_dropped() -> None:
    search = begin()
    assert extend(search, {EOS: {A: 0.6, B: 0.4}}, at_end=False) == [0, 0]
    assert search.tokens[:, 1].tolist() == [A, B]
    assert search.prune(1).tolist() == [0]
    assert search.tokens[:, 1].tolist() == [A]


def test_another_hypothesis_may_lead_while_nothing_is_committed() -> None:
    search, follow = begin(), {EOS: {A: 0.6, B: 0.4}, A: {C: 0.5, A: 0.5}, B: {C: 1.0}}
    extend(search, follow, at_end=False)
    assert extend(search, follow, at_end=False)[0] == 1
    assert search.best == [B, C]


def test_scores_that_are_nan_are_reported() -> None:
    scores = np.zeros((1, 7), np.float32)
    scores[0, C] = np.nan
    with pytest.raises(ValueError, match=r"the scores of the model are not finite: use another checkpoint"):
        begin().extend(scores, 10, at_end=False)


def test_a_search_starts_from_its_prefix() -> None:
    search = BeamSearch(SearchOptions(), EOS, PAD, StreamingModel.places, [A, B])
    extend(search, {B: {C: 1.0}}, at_end=True)
    assert search.best == [A, B, C]


@pytest.mark.parametrize("beam", [1, 2])
def test_forced_tokens_are_searched_and_count_in_the_score_alone(beam: int) -> None:
    """As with ``fairseq-generate --prefix-size``; the limit of one token and an empty sentence do not see them."""
    search = BeamSearch(SearchOptions(beam), EOS, PAD, StreamingModel.places, forced=[C])
    follow = {EOS: {A: 0.9, C: 0.1}, C: {EOS: 0.6, A: 0.3, B: 0.1}, A: {B: 0.9, EOS: 0.1}, B: {B: 1.0}}
    assert search.extend(log_probs(search, follow), 1, at_end=True).tolist() == [0]
    assert search.tokens.tolist() == [[EOS, C]]
    assert search.best == []
    search.extend(log_probs(search, follow), 1, at_end=True)
    assert search.best == [A]
    assert search.prune(1).tolist() == [0]
    search.extend(log_probs(search, follow), 1, at_end=True)
    assert search.ended and search.best == [A]
    total = np.log([0.1, 0.3, 0.1]).sum()
    assert search.finished[0][0] == pytest.approx(float(total) / 3)


def test_committed_tokens_come_after_forced_ones() -> None:
    search = BeamSearch(SearchOptions(), EOS, PAD, StreamingModel.places, [A, B], forced=[C])
    assert search.tokens.tolist() == [[EOS, C, A, B]]
    assert search.best == [A, B]


def test_only_the_best_may_end_a_sentence_before_the_source_has_ended() -> None:
    follow = {EOS: {A: 0.6, B: 0.4}, A: {C: 0.9, EOS: 0.1}, B: {EOS: 0.9, C: 0.1}, C: {C: 1.0}}
    search = begin()
    extend(search, follow, at_end=False)
    extend(search, follow, at_end=False)
    assert not search.ended and not search.finished
    assert search.tokens[0, 1:].tolist() == [A, C]
    search = begin()
    extend(search, follow, at_end=False)
    extend(search, follow, at_end=True)
    assert [tokens for _, tokens in search.finished] == [[B]]
    assert not search.ended, "after the end, a finished hypothesis waits for the others"


@pytest.mark.parametrize("lenpen, best", [(1.0, [A, C]), (0.0, [B])])
def test_the_length_penalty_decides(lenpen: float, best: list[int]) -> None:
    follow = {EOS: {A: 0.5, B: 0.5}, A: {C: 0.9}, C: {C: 0.5, EOS: 0.4}, B: {EOS: 0.6}}
    search, parents = begin(lenpen=lenpen), [0]
    while not search.ended:
        assert parents
        parents = extend(search, follow, at_end=True)
    assert search.best == best and parents == []


def test_a_fork_has_its_own_finished_hypotheses() -> None:
    search, follow = begin(), {EOS: {A: 0.6, B: 0.4}, A: {C: 1.0}, B: {EOS: 1.0}}
    extend(search, follow, at_end=True)
    other = search.fork()
    extend(other, follow, at_end=True)
    assert other.finished and not search.finished


@pytest.mark.parametrize("count", [1, 2, 10])
def test_both_rankings_agree(count: int) -> None:
    """That of PyTorch, which ``fairseq-generate`` has too, and that of sessions without PyTorch."""
    rng = np.random.default_rng(count)
    for size in (count, 40, 9_000):
        scores = rng.permutation(size).astype(np.float32)
        scores[rng.permutation(size)[: size // 3]] = -np.inf
        mine, theirs = (scores[ranking(scores, count)] for ranking in (StreamingModel.places, Translator.places))
        assert mine.tolist() == theirs.tolist() == np.sort(scores)[::-1][:count].tolist()


def test_of_equal_scores_the_first_wins() -> None:
    scores = np.array([0, 3, 1, 3, 3, 2], np.float32)
    assert StreamingModel.places(scores, 2).tolist() == [1, 3]
    assert StreamingModel.places(scores, 4).tolist() == [1, 3, 4, 5]
