"""CTC prefix scores: what brute force over all alignments gives."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from mla_fairseq.models.ctc import collapse
from mla_fairseq.models.ctc_prefix import PrefixScores

STATES, SYMBOLS, EOS = 5, 4, 2  # 0 is the blank; CTC emits no 2


def sentences(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """Return the probability of each sentence: the sum over its alignments."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(SYMBOLS), repeat=len(log_probs)):
        text = tuple(collapse(torch.tensor(path)))
        probability = math.exp(sum(float(log_probs[i, symbol]) for i, symbol in enumerate(path)))
        found[text] = found.get(text, 0.0) + probability
    return found


def expected(known: dict[tuple[int, ...], float], prefix: tuple[int, ...], token: int) -> float:
    """Return the probability of all sentences that begin with a prefix and a token, or end after the prefix."""
    if token == EOS:
        return known.get(prefix, 0.0)
    longer = (*prefix, token)
    return sum(value for text, value in known.items() if text[: len(longer)] == longer)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_they_are_sums_over_all_alignments(scale: float) -> None:
    """Padding counts for nothing; repetitions need a blank."""
    torch.manual_seed(0)
    logits = scale * torch.randn(2, STATES, SYMBOLS, dtype=torch.double)
    logits[..., EOS] = -math.inf
    log_probs, lengths = logits.log_softmax(-1), torch.tensor([STATES, STATES - 2])
    known = [sentences(row[:length]) for row, length in zip(log_probs, lengths.tolist(), strict=True)]
    for text in itertools.product((1, 3), repeat=3):
        scores = PrefixScores(log_probs.exp(), lengths, EOS)
        for size in range(4):
            prefix, found = text[:size], (scores.scores() + scores.total.unsqueeze(1)).exp()
            for row, token in itertools.product(range(2), (1, EOS, 3)):
                wanted = expected(known[row], prefix, token)
                assert float(found[row, token]) == pytest.approx(wanted, rel=1e-9, abs=1e-300), (prefix, row, token)
            assert not found[:, 0].any()
            if size < 3:
                scores.advance(torch.arange(2), torch.full((2,), text[size]))


class Attention:
    """Log-probabilities of the next token after a text, different after each one; there is no blank."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, text: tuple[int, ...]) -> Tensor:
        if text not in self.known:
            logits = 2 * torch.randn(SYMBOLS, dtype=torch.double)
            logits[0] = -math.inf
            self.known[text] = logits.log_softmax(-1)
        return self.known[text]

    def probability(self, text: tuple[int, ...], read: int) -> float:
        """Return the probability that a text follows its first ``read`` tokens."""
        return math.exp(sum(float(self(text[:i])[text[i]]) for i in range(read, len(text))))


def begun(known: dict[tuple[int, ...], float], attention: Attention, prefix: tuple[int, ...]) -> float:
    """Return the probability that a sentence begins with a prefix, if attention writes what follows the states."""
    total = 0.0
    for text, value in known.items():
        common = min(len(text), len(prefix))
        if text[:common] == prefix[:common]:
            total += value * attention.probability(prefix, common)
    return total


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("states", [1, 2, STATES])
def test_attention_extends_what_the_states_so_far_emit(scale: float, states: int) -> None:
    """The probabilities of the next tokens add up to 1, even after more tokens than the states can emit."""
    torch.manual_seed(0)
    logits = scale * torch.randn(1, states, SYMBOLS, dtype=torch.double)
    logits[..., EOS] = -math.inf
    log_probs, attention = logits.log_softmax(-1), Attention()
    known = sentences(log_probs[0])
    for text in itertools.product((1, 3), repeat=4):
        scores = PrefixScores(log_probs.exp(), torch.tensor([states]), EOS)
        for size in range(5):
            prefix, following = text[:size], attention(text[:size])
            found = scores.scores(following.unsqueeze(0))[0].exp()
            assert float(found.sum()) == pytest.approx(1)
            for token in (1, EOS, 3):
                wanted = begun(known, attention, (*prefix, token)) / begun(known, attention, prefix)
                assert float(found[token]) == pytest.approx(wanted, rel=1e-9, abs=1e-300), (prefix, token)
            if size < 4:
                scores.advance(torch.tensor([0]), torch.tensor([text[size]]), following[text[size]].view(1))


def test_hypotheses_may_be_chosen_in_any_order() -> None:
    torch.manual_seed(0)
    probs, likely = torch.randn(2, STATES, 6).double().softmax(-1), torch.randn(6).double().log_softmax(-1)
    together, lengths = PrefixScores(probs, torch.tensor([STATES, 4]), EOS), torch.tensor([STATES, 4])

    def advance(scores: PrefixScores, parents: list[int], tokens: list[int]) -> None:
        scores.advance(torch.tensor(parents), torch.tensor(tokens), likely[tokens])

    advance(together, [1, 0, 0], [4, 5, 4])
    together.keep(torch.tensor([2, 0]))
    advance(together, [1, 1, 0], [4, 5, 1])
    for place, (row, tokens) in enumerate([(1, (4, 4)), (1, (4, 5)), (0, (4, 1))]):
        alone = PrefixScores(probs[row : row + 1], lengths[row : row + 1], EOS)
        for token in tokens:
            advance(alone, [0], [token])
        for attention in None, likely:
            found = together.scores(attention)[place : place + 1]
            torch.testing.assert_close(found, alone.scores(attention))


def test_no_text_has_a_blank() -> None:
    """A search without another choice may add one: then no score is above that of a possible text."""
    scores = PrefixScores(torch.full((1, STATES, SYMBOLS), 1 / SYMBOLS).double(), torch.tensor([STATES]), EOS)
    for token in (0, 1):
        scores.advance(torch.tensor([0]), torch.tensor([token]))
        assert scores.scores().isneginf().all()


def test_a_long_source_loses_nothing() -> None:
    """800 states, 200 of them with the symbols, whose scores add up to the probability of the sentence."""
    torch.manual_seed(0)
    log_probs = (8 * torch.randn(1, 800, 50)).log_softmax(-1)
    target, lengths = torch.randint(3, 50, (200,)), torch.tensor([800])
    scores, total = PrefixScores(log_probs.double().exp(), lengths, EOS), 0.0
    for token in target.tolist():
        total += float(scores.scores()[0, token])
        scores.advance(torch.tensor([0]), torch.tensor([token]))
    total += float(scores.scores()[0, EOS])
    exact = torch.nn.functional.ctc_loss(
        log_probs.double().transpose(0, 1), target.unsqueeze(0), lengths, torch.tensor([200]), reduction="sum"
    )
    assert total == pytest.approx(-float(exact), rel=1e-6)
