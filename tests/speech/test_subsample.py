"""Subsamplers: fairseq's numbers on unpadded input, and independence of padding."""

import pytest
import torch
from fairseq.models.speech_to_text.modules import convolution as fairseqs
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mla_fairseq.speech.subsample import Conv1dSubsampler, Conv2dSubsampler, halved, real_frames

FEATURES, CHANNELS = 10, 6
SUBSAMPLERS = {
    "conv1d-5-5": lambda: Conv1dSubsampler(FEATURES, 8, CHANNELS, (5, 5)),
    "conv1d-3": lambda: Conv1dSubsampler(FEATURES, 8, CHANNELS, (3,)),
    "conv1d-4-2": lambda: Conv1dSubsampler(FEATURES, 8, CHANNELS, (4, 2)),
    "conv1d-7-5-3": lambda: Conv1dSubsampler(FEATURES, 8, CHANNELS, (7, 5, 3)),
    "conv2d": lambda: Conv2dSubsampler(FEATURES, 4, CHANNELS),
}
every_subsampler = pytest.mark.parametrize("make", SUBSAMPLERS.values(), ids=SUBSAMPLERS)


def fairseqs_own(name: str) -> nn.Module:
    if name == "conv2d":
        return fairseqs.Conv2dSubsampler(1, FEATURES, 4, CHANNELS)
    return fairseqs.Conv1dSubsampler(FEATURES, 8, CHANNELS, [int(size) for size in name.split("-")[1:]])


def alone(subsampler: nn.Module, frames: Tensor) -> Tensor:
    """Return the states (T', C) of one sentence (T, F)."""
    return subsampler(frames.unsqueeze(0), torch.tensor([len(frames)]))[0].squeeze(1)


@pytest.mark.parametrize("name", SUBSAMPLERS)
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 63, 64, 203])
def test_unpadded_states_are_fairseqs(name: str, frames: int) -> None:
    theirs, ours = fairseqs_own(name), SUBSAMPLERS[name]()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, lengths = torch.randn(2, frames, FEATURES), torch.tensor([frames, frames])
    states, state_lengths = ours(x, lengths)
    torch.testing.assert_close(states, theirs(x, lengths)[0], rtol=1e-6, atol=1e-6)
    assert state_lengths.tolist() == [len(states)] * 2


@every_subsampler
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4), extra=st.integers(0, 20), seed=st.integers(0, 99))
def test_a_sentence_in_a_padded_batch_is_the_sentence_alone(make, lengths: list[int], extra: int, seed: int) -> None:
    torch.manual_seed(seed)
    subsampler = make().double()
    sentences = [torch.randn(length, FEATURES, dtype=torch.double) for length in lengths]
    padded = torch.full((len(lengths), max(lengths) + extra, FEATURES), 1e3, dtype=torch.double)
    for row, sentence in zip(padded, sentences, strict=True):
        row[: len(sentence)] = sentence
    states, state_lengths = subsampler(padded, torch.tensor(lengths))
    for i, sentence in enumerate(sentences):
        expected = alone(subsampler, sentence)
        assert len(expected) == state_lengths[i]
        torch.testing.assert_close(states[: state_lengths[i], i], expected, rtol=0, atol=1e-9)


@every_subsampler
def test_gradients_of_a_sentence_do_not_depend_on_padding(make) -> None:
    subsampler = make().double()
    sentence = torch.randn(21, FEATURES, dtype=torch.double)
    padded = torch.cat((sentence, torch.randn(30, FEATURES, dtype=torch.double))).unsqueeze(0).requires_grad_()
    states, lengths = subsampler(padded, torch.tensor([21]))
    (states[: lengths[0]] ** 2).sum().backward()
    inside = padded.grad[0, :21].clone()
    assert padded.grad[0, 21:].abs().max() == 0
    sentence.requires_grad_()
    (alone(subsampler, sentence) ** 2).sum().backward()
    torch.testing.assert_close(inside, sentence.grad, rtol=0, atol=1e-9)


@given(length=st.integers(1, 500), kernel=st.integers(1, 9))
def test_the_length_is_that_of_torchs_convolution(length: int, kernel: int) -> None:
    convolution = nn.Conv1d(1, 1, kernel, stride=2, padding=kernel // 2)
    assert halved(torch.tensor(length), kernel) == convolution(torch.zeros(1, 1, length)).shape[-1]


@pytest.mark.parametrize("frames", [*range(1, 10), 100, 3000])
@pytest.mark.parametrize("name", ["conv1d-5-5", "conv2d"])
def test_a_state_represents_four_frames(name: str, frames: int) -> None:
    _, lengths = SUBSAMPLERS[name]()(torch.zeros(1, frames, FEATURES), torch.tensor([frames]))
    assert lengths.tolist() == [-(-frames // 4)]


def test_real_frames_are_those_below_the_length() -> None:
    assert real_frames(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]
