"""Monotonic attention: expectation against slow loops over the papers' equations, training against decoding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from mla_fairseq.attention import (
    Full,
    Layout,
    Monotonic,
    MonotonicMultiheadAttention,
    build_attention,
    chunkwise,
    expected_alignment,
    fork,
    infinite_lookback,
    reorder,
)
from mla_fairseq.attention.monotonic import ends, pool, steps_of, to_states
from tests.attention.cases import ANYWHERE

DOUBLE = torch.float64


def by_recurrence(p: Tensor, steps: list[int], mass_preservation: bool) -> Tensor:
    """Compute arXiv 1704.00784, equation 8: from step k of the target before to step j, with no stop between."""
    batch, heads, targets, _ = p.shape
    alignment = torch.zeros_like(p)
    for b in range(batch):
        for h in range(heads):
            before = [1.0] + [0.0] * (steps[b] - 1)
            for i in range(targets):
                now = []
                for j in range(steps[b]):
                    mass = 0.0
                    for k in range(j + 1):
                        passed = 1.0
                        for m in range(k, j):
                            passed *= 1 - float(p[b, h, i, m])
                        mass += before[k] * passed
                    now.append(float(p[b, h, i, j]) * mass)
                before = now
                alignment[b, h, i, : steps[b]] = torch.tensor(now, dtype=p.dtype)
                if mass_preservation:
                    alignment[b, h, i, steps[b] - 1] += 1 - sum(now)
    return alignment


shapes = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 5), st.integers(1, 7), st.integers(0, 10**6))


@given(shapes, st.booleans(), st.booleans())
def test_alignment_is_the_recurrence(shape: tuple, mass_preservation: bool, extreme: bool) -> None:
    *sizes, seed = shape
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(*sizes, dtype=DOUBLE, generator=generator)
    if extreme:  # 0, 1, and numbers next to them
        p = torch.where(p < 0.3, 0.0, torch.where(p > 0.7, 1.0, torch.where(p < 0.5, 1e-12, 1 - 1e-12))).to(DOUBLE)
    steps = torch.randint(1, sizes[-1] + 1, (sizes[0],), generator=generator)
    found = expected_alignment(p, steps, mass_preservation)
    assert_close(found, by_recurrence(p, steps.tolist(), mass_preservation), rtol=0, atol=1e-9)
    if mass_preservation:
        assert_close(found.sum(-1), torch.ones_like(found[..., 0]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("mass_preservation", [True, False])
def test_alignment_has_the_right_gradient(mass_preservation: bool) -> None:
    torch.manual_seed(1)
    p = torch.rand(2, 2, 4, 6, dtype=DOUBLE, requires_grad=True)
    steps = torch.tensor([6, 3])
    assert torch.autograd.gradcheck(lambda p: expected_alignment(p, steps, mass_preservation), p)


def test_alignment_is_stable_in_float32() -> None:
    torch.manual_seed(1)
    p = (torch.randn(1, 4, 40, 500, dtype=DOUBLE) * 8).sigmoid()  # most are within 1e-3 of 0 or 1
    assert_close(expected_alignment(p.float()).double(), expected_alignment(p), rtol=0, atol=1e-5)


def softly(alignment: Tensor, weights: Tensor, window: int | None) -> Tensor:
    """Compute the expected attention, target by target and stop by stop."""
    expected = torch.zeros_like(alignment)
    for k in range(alignment.shape[-1]):
        first = 0 if window is None else max(0, k - window + 1)
        part = weights[..., first : k + 1]
        expected[..., first : k + 1] += alignment[..., k : k + 1] * part / part.sum(-1, keepdim=True)
    return expected


@given(shapes, st.sampled_from([None, 1, 2, 3, 20]))
def test_soft_attention_is_the_mean_over_all_stops(shape: tuple, window: int | None) -> None:
    *sizes, seed = shape
    generator = torch.Generator().manual_seed(seed)
    alignment, weights = (torch.rand(*sizes, dtype=DOUBLE, generator=generator) for _ in range(2))
    soft = infinite_lookback(alignment, weights) if window is None else chunkwise(alignment, weights, window)
    assert_close(soft, softly(alignment, weights, window), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "lengths, threshold, steps",
    [([7, 8, 14, 1], 1.0, [1, 2, 2, 1]), ([8, 11, 12, 13], 0.3, [1, 1, 2, 2]), ([1, 7], 0.0, [1, 1])],
)
def test_the_last_step_counts_if_little_of_it_is_missing(lengths: list, threshold: float, steps: list) -> None:
    assert steps_of(torch.tensor(lengths), 7, threshold).tolist() == steps


@pytest.mark.parametrize("pooling", ["average", "last"])
def test_pooling_ignores_padding(pooling: str) -> None:
    torch.manual_seed(1)
    states = torch.randn(8, 2, 3, dtype=DOUBLE)
    mask = torch.arange(8) < torch.tensor([[8], [5]])
    found = pool(states, 3, pooling, mask)
    for b, length in enumerate([8, 5]):
        for j in range(-(-length // 3)):
            part = states[3 * j : min(3 * j + 3, length), b]
            assert_close(found[j, b], part.mean(0) if pooling == "average" else part[-1])


def test_alignment_to_steps_is_on_their_last_states() -> None:
    alignment = torch.tensor([[[[0.25, 0.75, 0.0]]], [[[0.0, 0.5, 0.5]]]])
    found = to_states(alignment, ends(3, torch.tensor([5, 8]), 3), 8)
    assert found[0, 0, 0].tolist() == [0, 0, 0.25, 0, 0.75, 0, 0, 0]
    assert found[1, 0, 0].tolist() == [0, 0, 0, 0, 0, 0.5, 0, 0.5]


SOFT = ["hard_aligned", "infinite_lookback", "chunkwise"]
LENGTHS = {"query_length": torch.tensor([9]), "key_length": torch.tensor([40])}


def attention(mechanism: str, soft: str, ratio: int, **more) -> MonotonicMultiheadAttention:
    """Return a module whose energies are so large that every p is 0 or 1."""
    torch.manual_seed(3)
    built = build_attention(mechanism, 4)
    rule = Monotonic(soft, ratio=ratio, chunk=3, energy_bias=True, energy_bias_init=-1.0, **more)
    module = MonotonicMultiheadAttention(12, 3, built, kdim=10, monotonic=rule).to(DOUBLE).eval()
    with torch.no_grad():
        module.q_proj_mono.weight *= 1e8
        module.energy_bias *= 1e7
    return module


def target_at(place: int) -> Layout:
    return Layout.at(Full(), place, keys=0, **LENGTHS)


def whole(mask: Tensor | None = None, targets: int = 6, states: int = 14) -> Layout:
    return Layout.whole(Full(), targets, states, key_mask=mask, **LENGTHS)


def decode(module, query: Tensor, source: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return outputs and numbers of states read, target by target, with the whole source given first."""
    state, outputs, seen = {}, [], []
    module.feed(source, state, True, mask)
    for i, target in enumerate(query.split(1)):
        output, read, _ = module.advance(target, state, target_at(i))
        outputs.append(output)
        seen.append(read)
    return torch.cat(outputs), torch.stack(seen, dim=-1)


@pytest.mark.parametrize("mass_preservation", [True, False])
@pytest.mark.parametrize("ratio", [1, 3])
@pytest.mark.parametrize("soft", SOFT)
@pytest.mark.parametrize("mechanism", ANYWHERE)
def test_with_p_of_0_and_1_training_is_decoding(mechanism: str, soft: str, ratio: int, mass_preservation: bool) -> None:
    module = attention(mechanism, soft, ratio, mass_preservation=mass_preservation)
    query, source = torch.randn(6, 2, 12, dtype=DOUBLE), torch.randn(14, 2, 10, dtype=DOUBLE)
    mask = torch.arange(14) < torch.tensor([[14], [8]])
    with torch.no_grad():
        expected, delays = module(query, source, whole(mask))
        output, seen = decode(module, query, source, mask)
    assert_close(output, expected, rtol=0, atol=1e-9)
    if mass_preservation:
        assert_close(seen.to(DOUBLE), delays, rtol=0, atol=1e-9)
        assert len(seen[0].unique()) > 1, "heads must move for this test"


@pytest.mark.parametrize("ratio", [1, 3])
@pytest.mark.parametrize("soft", SOFT)
@pytest.mark.parametrize("mechanism", ANYWHERE)
def test_a_source_in_chunks_gives_the_same_as_the_whole_source(mechanism: str, soft: str, ratio: int) -> None:
    """Some attempts to emit a target fail for lack of states, and are undone."""
    module = attention(mechanism, soft, ratio)
    query, source = torch.randn(6, 1, 12, dtype=DOUBLE), torch.randn(14, 1, 10, dtype=DOUBLE)
    with torch.no_grad():
        expected, expected_seen = decode(module, query, source, None)
        state, chunks, done, fed = {}, list(source.split([2, 1, 5, 3, 3])), 0, 0
        for i, chunk in enumerate(chunks):
            module.feed(chunk, state, final=False)
            fed += len(chunk)
            if i == len(chunks) - 1:
                module.feed(None, state, final=True)
            while done < len(query):
                before = fork(state)
                output, seen, wants = module.advance(query[done : done + 1], state, target_at(done))
                if wants.any() and not state[module.name]["over"].all():
                    state = before
                    break
                assert int(seen.max()) <= fed
                assert_close(output[0], expected[done], rtol=0, atol=1e-9)
                assert seen.tolist() == expected_seen[..., done].tolist()
                done += 1
    assert done == len(query)


def test_infinite_lookback_drops_states_that_every_head_has_read() -> None:
    """With a linear mechanism, these states are a sum of constant size."""
    module = attention("relu", "infinite_lookback", 1)
    state, sizes = {}, []
    with torch.no_grad():
        module.feed(torch.randn(50, 1, 10, dtype=DOUBLE), state, final=False)
        for place in range(30):
            module.advance(torch.randn(1, 1, 12, dtype=DOUBLE), state, target_at(place))
            own = state[module.name]
            slowest = int(own["seen"].min())
            assert own["key"].shape[2] == 50 - slowest
            sizes.append(own["mechanism.memory"].nbytes)
    assert len(set(sizes)) == 1
    assert slowest > 10, "heads must move for this test"


@pytest.mark.parametrize("mechanism", ["relu", "cosformer", "softmax"])
def test_hypotheses_can_be_reordered(mechanism: str) -> None:
    module = attention(mechanism, "infinite_lookback", 3)
    query, source = torch.randn(6, 2, 12, dtype=DOUBLE), torch.randn(14, 2, 10, dtype=DOUBLE)
    with torch.no_grad():
        expected, _ = decode(module, query, source, None)
        state, order = {}, torch.tensor([1, 0])
        module.feed(source, state, True)
        module.advance(query[:1], state, target_at(0))
        reorder(state, order)
        output, _, _ = module.advance(query[1:2, order], state, target_at(1))
    assert_close(output, expected[1:2, order], rtol=0, atol=1e-9)


def test_noise_is_added_in_training_only() -> None:
    module = attention("relu", "infinite_lookback", 1)
    with torch.no_grad():
        module.q_proj_mono.weight /= 1e8
        module.energy_bias.fill_(0.0)
    query, source = torch.randn(4, 1, 12, dtype=DOUBLE), torch.randn(6, 1, 10, dtype=DOUBLE)
    assert torch.equal(module(query, source)[1], module(query, source)[1])
    module.train()
    assert not torch.equal(module(query, source)[1], module(query, source)[1])


@pytest.mark.parametrize("soft", SOFT)
@pytest.mark.parametrize("mechanism", ANYWHERE)
def test_every_parameter_learns(mechanism: str, soft: str) -> None:
    torch.manual_seed(1)
    rule = Monotonic(soft, ratio=2, energy_bias=True)
    module = MonotonicMultiheadAttention(12, 3, build_attention(mechanism, 4), kdim=10, monotonic=rule)
    output, delays = module(torch.randn(5, 2, 12), torch.randn(9, 2, 10), whole(None, 5, 9))
    (output.square().sum() + delays.sum()).backward()
    idle = {"q_proj", "k_proj", "mechanism"} if soft == "hard_aligned" else set()
    for name, parameter in module.named_parameters():
        moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert moved == (name.split(".")[0] not in idle), name


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"soft": "soft"}, "must be one of hard_aligned"),
        ({"ratio": 0}, "must be at least 1"),
        ({"pooling": "max"}, "average or last"),
        ({"chunk": 0}, "--mocha-chunk-size must be at least 1, but is 0"),
        ({"pad_threshold": 2.0}, "from 0 to 1"),
        ({"noise_var": -1.0}, "at least 0"),
    ],
)
def test_a_wrong_option_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Monotonic(**wrong)
