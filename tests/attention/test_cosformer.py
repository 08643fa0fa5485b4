"""cosFormer's positions: cos(pi/2 (i / L_q - j / L_k)), the lengths they are measured against, and where they stop."""

import math

import pytest
import torch

from mla_fairseq.attention import Blocks, Causal, CosinePositions, Full, Lengths, LinearAttention, build_attention
from mla_fairseq.attention.features import ReLUFeatures
from mla_fairseq.attention.positions import proportion
from tests.attention.cases import assert_close, problem


def lengths(query: list[int], key: list[int]) -> Lengths:
    return Lengths(torch.tensor(query), torch.tensor(key))


def ones(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.float64)


def test_weights_follow_the_formula() -> None:
    """With equal contents only positions are left: by hand, for two samples with lengths of their own."""
    weights = build_attention("cosformer", 2).weights(
        ones(2, 1, 3, 2), ones(2, 1, 4, 2), Full(), None, lengths([3, 6], [4, 8])
    )
    for sample, (target, source) in enumerate([(3, 4), (6, 8)]):
        rows = [[math.cos(math.pi / 2 * (i / target - j / source)) for j in range(1, 5)] for i in range(1, 4)]
        expected = torch.tensor(rows, dtype=torch.float64)
        assert_close(weights[sample, 0], expected / expected.sum(-1, keepdim=True))


def test_positions_stop_at_the_expected_length() -> None:
    index, length = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([2, 4])
    assert proportion(index, length).tolist() == [[0.5, 1, 1, 1, 1], [0.25, 0.5, 0.75, 1, 1]]
    angles = CosinePositions().query(ones(1, 1, 5, 2), index, torch.tensor([2]))
    assert angles.shape == (1, 1, 5, 2)
    assert_close(angles[0, 0, 1:], torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(4, 2))


def test_no_weight_is_negative_beyond_the_expected_length() -> None:
    weights = build_attention("cosformer", 2).weights(
        ones(1, 1, 12, 2), ones(1, 1, 12, 2), Full(), None, lengths([4], [3])
    )
    assert bool((weights > 0).all())
    assert_close(weights[..., 3:, :], weights[..., -1:, :].expand(1, 1, 9, 12))


def test_an_empty_sequence_has_a_length_of_one() -> None:
    assert proportion(torch.tensor([[1, 2]]), torch.tensor([0])).tolist() == [[1.0, 1.0]]


def test_lengths_are_frozen_by_the_first_token() -> None:
    x, mechanism = problem(Causal(), 10, 10), build_attention("cosformer", 4)
    first, second = lengths([10, 8], [10, 8]), lengths([90, 3], [5, 70])
    whole = mechanism.parallel(x.q, x.k, x.v, Causal(), None, first)
    state, outputs = {}, []
    for t in range(10):
        q, k, v = (tensor[..., t : t + 1, :] for tensor in (x.q, x.k, x.v))
        given = first if t == 0 else (second, Lengths())[t % 2]
        output, state = mechanism.advance(state, q, k, v, Causal(), None, given)
        outputs.append(output)
    assert_close(torch.cat(outputs, dim=-2), whole)
    assert state["query_length"].tolist() == [10, 8]
    assert state["key_length"].tolist() == [10, 8]
    assert state["queries"].tolist() == state["keys"].tolist() == [10, 10]
    other = mechanism.parallel(x.q, x.k, x.v, Causal(), None, second)
    assert not torch.allclose(other, whole), "the lengths matter"


def test_each_sample_is_measured_against_its_own_length() -> None:
    x, mechanism = problem(Blocks(4), 12, 12), build_attention("cosformer", 4)
    both = mechanism.parallel(x.q, x.k, x.v, Blocks(4), None, lengths([12, 7], [11, 5]))
    for sample, (query, key) in enumerate([(12, 11), (7, 5)]):
        one = slice(sample, sample + 1)
        alone = mechanism.parallel(x.q[one], x.k[one], x.v[one], Blocks(4), None, lengths([query], [key]))
        assert_close(both[one], alone)


FOUR = torch.tensor([4, 4])


@pytest.mark.parametrize(
    "given", [Lengths(), Lengths(query=FOUR), Lengths(key=FOUR)], ids=["none", "query-alone", "key-alone"]
)
def test_a_state_needs_both_lengths(given: Lengths) -> None:
    x, mechanism = problem(Causal(), 4, 4), build_attention("cosformer", 4)
    for begin in (
        lambda: mechanism.advance({}, x.q, x.k, x.v, Causal(), None, given),
        lambda: mechanism.write({}, x.k, x.v, None, given),
    ):
        with pytest.raises(ValueError, match="give query and key lengths with the first token of a state"):
            begin()


def test_a_whole_sequence_knows_its_lengths() -> None:
    """Self-attention without lengths: as many as there are real tokens."""
    x, mechanism = problem(Causal(), 6, 6), build_attention("cosformer", 4)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    for key_mask, real in ((None, [6, 6]), (mask, [6, 4])):
        told = mechanism.parallel(x.q, x.k, x.v, Causal(), key_mask, lengths(real, real))
        assert torch.equal(mechanism.parallel(x.q, x.k, x.v, Causal(), key_mask), told)


def test_cross_attention_knows_its_lengths() -> None:
    x, mechanism = problem(Full(), 3, 6), build_attention("cosformer", 4)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    told = mechanism.parallel(x.q, x.k, x.v, Full(), mask, lengths([3, 3], [6, 4]))
    assert torch.equal(mechanism.parallel(x.q, x.k, x.v, Full(), mask), told)


def test_lengths_that_were_written_to_are_read_again() -> None:
    """What layers share must not outlive the lengths that it was made of."""
    mechanism, (q, k, v) = build_attention("cosformer", 4), torch.rand(3, 2, 1, 5, 4)
    lengths = torch.tensor([5, 3])
    before = mechanism.parallel(q, k, v, Causal(), lengths=Lengths(lengths, lengths))
    lengths += 4
    after = mechanism.parallel(q, k, v, Causal(), lengths=Lengths(lengths, lengths))
    fresh = mechanism.parallel(q, k, v, Causal(), lengths=Lengths(lengths.clone(), lengths.clone()))
    assert after.equal(fresh)
    assert not after.equal(before)


def test_training_may_follow_inference_mode() -> None:
    """Autograd refuses what inference mode made."""
    mechanism, (q, k, v) = build_attention("cosformer", 4), torch.rand(3, 2, 1, 6, 4)
    with torch.inference_mode():
        expected = mechanism.parallel(q, k, v, Causal())
    output = mechanism.parallel(q.requires_grad_(), k, v, Causal())
    output.sum().backward()
    assert output.equal(expected)
    assert q.grad.abs().sum() > 0


def test_lengths_that_inference_mode_wrote_to_are_read_again() -> None:
    mechanism, (q, k, v) = build_attention("cosformer", 4), torch.rand(3, 2, 1, 5, 4)
    with torch.inference_mode():
        lengths = torch.tensor([5, 3])
        before = mechanism.parallel(q, k, v, Causal(), lengths=Lengths(lengths, lengths))
        lengths += 4
        after = mechanism.parallel(q, k, v, Causal(), lengths=Lengths(lengths, lengths))
        fresh = mechanism.parallel(q, k, v, Causal(), lengths=Lengths(lengths.clone(), lengths.clone()))
    assert after.equal(fresh)
    assert not after.equal(before)


class Slower(CosinePositions):
    """As a researcher would vary it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def query(self, features: torch.Tensor, index: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        return super().query(features, index * self.rate, length)

    key = query


def test_a_subclass_is_not_taken_for_its_parent() -> None:
    q, k, v = torch.rand(3, 2, 1, 5, 4)
    lengths = Lengths(*[torch.tensor([5, 5])] * 2)
    for rate in (1.0, 0.2):
        mechanism = LinearAttention(ReLUFeatures(), Slower(rate))
        assert_close(
            mechanism.parallel(q, k, v, Causal(), lengths=lengths),
            mechanism.advance({}, q, k, v, Causal(), lengths=lengths)[0],
        )


def walk(layers: int, counts: torch.Tensor, steps: int = 4) -> list[torch.Tensor]:
    """The outputs of several layers over the same stream, which they walk step by step in turn."""
    torch.manual_seed(0)
    q, k, v = torch.rand(3, steps, 2, 1, 1, 4)
    mechanisms, states = [build_attention("cosformer", 4) for _ in range(layers)], [{} for _ in range(layers)]
    outputs = []
    for step in range(steps):
        for layer, mechanism in enumerate(mechanisms):
            output, states[layer] = mechanism.advance(
                states[layer], q[step], k[step], v[step], Causal(), None, Lengths(counts, counts)
            )
            outputs.append(output)
    return outputs


def test_layers_share_the_positions_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries and keys of all layers stand at one place: it is worked out once."""
    made = []

    def counted(features: torch.Tensor, index: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        made.append(index)
        return original(CosinePositions(), features, index, length)

    original = CosinePositions.query
    expected = walk(3, torch.tensor([4, 3]))
    monkeypatch.setattr(CosinePositions, "query", lambda self, *given: counted(*given))
    found = walk(3, torch.tensor([4, 3]))
    assert len(made) == 4
    assert all(map(torch.equal, found, expected))
    assert not torch.equal(walk(3, torch.tensor([9, 9]))[-1], expected[-1])


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_what_is_shared_is_the_same_in_every_mode(mode: type) -> None:
    counts = torch.tensor([4])
    with mode():
        found = walk(2, counts)
    assert all(map(torch.equal, found, walk(2, counts)))


def test_lengths_that_learn_keep_their_gradient() -> None:
    length = torch.tensor([4.0], requires_grad=True)
    with torch.no_grad():
        walk(1, length)
    walk(1, length)[-1].sum().backward()
    assert float(length.grad.abs()) > 0
