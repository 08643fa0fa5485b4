"""The encoder: padding has no effect, its site has one mechanism, and it is frozen for as long as asked."""

import pytest
import torch

from mla_fairseq.attention import LinearAttention, SoftmaxAttention
from tests.models.conftest import EVERYWHERE, FEATURES, Build

FRONT_ENDS = {"conv1d": "", "conv2d": "--conv-version convtransformer"}
LENGTHS = [61, 40, 17, 3]


def sentences() -> list[torch.Tensor]:
    return [torch.randn(length, FEATURES, dtype=torch.double) for length in LENGTHS]


def padded(sentences: list[torch.Tensor], extra: int = 0) -> dict[str, torch.Tensor]:
    """Return a batch with large numbers as padding, so that a leak changes the result."""
    batch = torch.full((len(sentences), max(map(len, sentences)) + extra, FEATURES), 1e3, dtype=torch.double)
    for row, sentence in zip(batch, sentences, strict=True):
        row[: len(sentence)] = sentence
    return {"src_tokens": batch, "src_lengths": torch.tensor([len(sentence) for sentence in sentences])}


@pytest.mark.parametrize("front_end", FRONT_ENDS.values(), ids=FRONT_ENDS)
@pytest.mark.parametrize("flags", EVERYWHERE.values(), ids=EVERYWHERE)
def test_padding_never_changes_a_sentence(build: Build, flags: str, front_end: str) -> None:
    encoder = build(flags=f"{flags} {front_end}").model.double().eval().encoder
    whole = sentences()
    together = encoder(**padded(whole, extra=9))
    for i, sentence in enumerate(whole):
        alone = encoder(**padded([sentence]))
        assert alone["encoder_padding_mask"] == []
        states = alone["encoder_out"][0]
        real = ~together["encoder_padding_mask"][0][i]
        assert real.sum() == len(states)
        torch.testing.assert_close(together["encoder_out"][0][real, i], states[:, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("flags", EVERYWHERE.values(), ids=EVERYWHERE)
def test_every_state_depends_on_its_sentence_only(build: Build, flags: str) -> None:
    encoder = build(flags=flags).model.double().eval().encoder
    batch = padded(sentences(), extra=9)
    batch["src_tokens"].requires_grad_()
    encoder(**batch)["encoder_out"][0][2].square().sum().backward()  # the third state of each sentence
    for length, gradient in zip(LENGTHS, batch["src_tokens"].grad, strict=True):
        used = gradient.abs().amax(-1) > 0
        assert not used[length:].any()
        assert used[:length].all() or length < 9  # a sentence of 3 frames has no third state


def test_streams_may_be_reordered(build: Build) -> None:
    encoder = build().model.double().eval().encoder
    encoded = encoder(**padded(sentences()), return_all_hiddens=True)
    order = torch.tensor([3, 0, 0])
    got = encoder.reorder_encoder_out(encoded, order)
    torch.testing.assert_close(got["encoder_out"][0], encoded["encoder_out"][0][:, order])
    assert got["encoder_padding_mask"][0].equal(encoded["encoder_padding_mask"][0][order])
    assert [states.shape[1] for states in got["encoder_states"]] == [3, 3]


def test_the_hidden_states_are_those_of_the_layers(build: Build) -> None:
    encoder = build().model.double().eval().encoder
    encoded = encoder(**padded(sentences()), return_all_hiddens=True)
    assert len(encoded["encoder_states"]) == 2
    torch.testing.assert_close(encoder.layer_norm(encoded["encoder_states"][-1]), encoded["encoder_out"][0])
    assert encoder(**padded(sentences()))["encoder_states"] == []


def test_the_encoder_is_frozen_for_the_first_updates(build: Build) -> None:
    model = build(flags="--encoder-freezing-updates 2").model
    batch = {"src_tokens": torch.randn(1, 20, FEATURES), "src_lengths": torch.tensor([20])}
    for update, learns in ((0, False), (1, False), (2, True)):
        model.set_num_updates(update)
        assert model.encoder(**batch)["encoder_out"][0].requires_grad == learns


def test_an_unknown_front_end_is_named(build: Build) -> None:
    built = build()
    built.args.conv_version = "conv3d"
    with pytest.raises(ValueError, match="must be s2t_transformer or convtransformer, but is 'conv3d'"):
        built.task.build_model(built.args)


def test_the_mechanism_is_at_its_site_only(build: Build) -> None:
    model = build(flags="--encoder-attn-type relu").model
    assert all(isinstance(layer.self_attn.mechanism, LinearAttention) for layer in model.encoder.transformer_layers)
    for layer in model.decoder.layers:
        assert isinstance(layer.self_attn.mechanism, SoftmaxAttention)
        assert isinstance(layer.encoder_attn.mechanism, SoftmaxAttention)
