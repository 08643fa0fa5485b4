"""The beam inside the rule, on scores that are given."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mla_fairseq.streaming.search import BeamSearch

EOS, PAD, UNK, A, B, C = 2, 1, 3, 4, 5, 6


class Given:
    """A stream whose probabilities follow from the last token."""

    forced = False
    translator = SimpleNamespace(parameter=torch.zeros(1))

    def __init__(self, follow: dict[int, dict[int, float]]) -> None:
        self.follow = follow
        self.kept: list[int] = []

    def step(self, tokens: Tensor, upto: int) -> Tensor:
        scores = torch.full((len(tokens), 7), 1e-9)
        for i, token in enumerate(tokens.tolist()):
            for after, probability in self.follow.get(token, {EOS: 1.0}).items():
                scores[i, after] = probability
        return scores.log()

    def keep(self, hypotheses: Tensor) -> None:
        self.kept = hypotheses.tolist()


def search(beam: int = 2, lenpen: float = 1.0) -> BeamSearch:
    return BeamSearch(beam, lenpen, EOS, PAD, UNK)


def step(found: BeamSearch, stream: Given, tail: bool) -> None:
    assert found.step(stream, 1, lambda: 10, tail)


def test_hypotheses_that_say_otherwise_than_what_is_out_end() -> None:
    found, stream = search(), Given({EOS: {A: 0.6, B: 0.4}})
    step(found, stream, tail=False)
    assert found.tokens[:, 1].tolist() == [A, B]
    found.commit(stream, 1)
    assert found.tokens[:, 1].tolist() == [A]
    assert stream.kept == [0]


def test_nothing_out_lets_a_later_leader_be() -> None:
    found, stream = search(), Given({EOS: {A: 0.6, B: 0.4}, A: {C: 0.5, A: 0.5}, B: {C: 1.0}})
    step(found, stream, tail=False)
    step(found, stream, tail=False)
    assert found.best == [B, C]


def test_only_the_best_may_end_a_sentence_before_the_source_has() -> None:
    follow = {EOS: {A: 0.6, B: 0.4}, A: {C: 0.9, EOS: 0.1}, B: {EOS: 0.9, C: 0.1}, C: {C: 1.0}}
    found, stream = search(), Given(follow)
    step(found, stream, tail=False)
    step(found, stream, tail=False)
    assert not found.ended and not found.finished
    assert found.tokens[0, 1:].tolist() == [A, C]
    found, stream = search(), Given(follow)
    step(found, stream, tail=False)
    step(found, stream, tail=True)
    assert [tokens for _, tokens in found.finished] == [[B]]
    assert not found.ended, "in the tail, one that has ended waits for the others"


@pytest.mark.parametrize("lenpen, best", [(1.0, [A, C]), (0.0, [B])])
def test_the_length_penalty_chooses(lenpen: float, best: list[int]) -> None:
    follow = {EOS: {A: 0.5, B: 0.5}, A: {C: 0.9}, C: {C: 0.5, EOS: 0.4}, B: {EOS: 0.6}}
    found, stream = search(lenpen=lenpen), Given(follow)
    while not found.ended:
        step(found, stream, tail=True)
    assert found.best == best


def test_a_snapshot_has_its_own_finished_hypotheses() -> None:
    found, stream = search(), Given({EOS: {A: 0.6, B: 0.4}, A: {C: 1.0}, B: {EOS: 1.0}})
    step(found, stream, tail=True)
    other = found.fork()
    step(other, stream, tail=True)
    assert other.finished and not found.finished


def test_heads_that_want_to_read_leave_everything_as_it_was() -> None:
    found, stream = search(), Given({})
    stream.step = lambda tokens, upto: None
    assert not found.step(stream, 1, lambda: 10, tail=False)
    assert found.best == []
