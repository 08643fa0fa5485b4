"""Text to spectrogram: with softmax everywhere it is fairseq's model, and the invariants hold for every mechanism."""

import argparse
from argparse import Namespace

import pytest
import torch
from fairseq.criterions.tacotron2_loss import GuidedAttentionLoss
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY
from fairseq.models.text_to_speech.tts_transformer import TTSTransformerModel
from torch import Tensor

from mla_fairseq.attention import CosFormer, nbytes
from mla_fairseq.errors import UserError
from mla_fairseq.models.tts_transformer_mla import TTSTransformerMLAModel
from tests.models.conftest import EVERYWHERE, IN_ORDER, LINEAR, MIXED, SOFTMAX

SYMBOLS, PAD, BINS, PER_STEP, STEPS = 20, 1, 5, 2, 11
ALL = EVERYWHERE | MIXED
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SIZES = (
    "--encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 "
    "--encoder-transformer-layers 2 --decoder-transformer-layers 2 --encoder-attention-heads 2 "
    "--decoder-attention-heads 2 --encoder-conv-kernel-size 3 --prenet-dim 8 --postnet-conv-dim 8 "
    f"--output-frame-dim {BINS} --prenet-dropout 0 --activation-fn relu"
)
every_mix = pytest.mark.parametrize("flags", ALL.values(), ids=ALL)


def build(
    flags: str = "", seed: int = 0, speakers: int = 0, model: type = TTSTransformerMLAModel
) -> TTSTransformerModel:
    """Return a model over SYMBOLS symbols, in evaluation, with batch norms off their initial statistics."""
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS)
    model.add_args(parser)
    args = parser.parse_args(f"{SIZES} {flags}".split())
    ARCH_CONFIG_REGISTRY["tts_transformer"](args)
    args.n_frames_per_step, args.max_source_positions, args.max_target_positions = PER_STEP, 100, 100
    dictionary = Dictionary()
    for i in range(SYMBOLS - len(dictionary)):
        dictionary.add_symbol(f"s{i}")
    torch.manual_seed(seed)
    embedding = torch.nn.Embedding(speakers, args.speaker_embed_dim) if speakers else None
    built = model.build_model(args, Namespace(src_dict=dictionary, get_speaker_embeddings=lambda _: embedding))
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.bias)
    return built.eval()


def text(*lengths: int) -> Tensor:
    """Return random symbols of these lengths, padded on the right."""
    tokens = torch.randint(4, SYMBOLS, (len(lengths), max(lengths)))
    for row, length in zip(tokens, lengths, strict=True):
        row[length:] = PAD
    return tokens


def frames(batch: int, steps: int = STEPS) -> Tensor:
    return torch.randn(batch, steps, PER_STEP * BINS)


def encode(model: TTSTransformerModel, tokens: Tensor, **more: Tensor) -> dict:
    return model.encoder(tokens, src_lengths=tokens.ne(PAD).sum(1), **more)


def full(batch: int, steps: int = STEPS) -> Tensor:
    return torch.full((batch,), steps)


def step_by_step(model: TTSTransformerModel, given: Tensor, encoded: dict, state: dict, **more) -> tuple[Tensor, ...]:
    """Return the frames, ends and weights of one call for each step."""
    outputs = [
        model.decoder(frame, encoded, incremental_state=state, target_lengths=full(len(given)), **more)
        for frame in given.split(1, dim=1)
    ]
    weights = None if outputs[0][2]["attn"] is None else torch.cat([extra["attn"] for *_, extra in outputs], dim=2)
    return (
        torch.cat([extra["feature_out"] for *_, extra in outputs], 1),
        torch.cat([end for _, end, _ in outputs], 1),
        weights,
    )


@pytest.mark.parametrize("speakers", [0, 3])
@pytest.mark.parametrize("flags", ["", "--encoder-normalize-before --decoder-normalize-before"], ids=["post", "pre"])
@torch.no_grad()
def test_softmax_everywhere_equals_fairseqs_model(flags: str, speakers: int) -> None:
    stock = build(flags, seed=1, speakers=speakers, model=TTSTransformerModel)
    ours = build(flags, seed=2, speakers=speakers)
    ours.load_state_dict(stock.state_dict())
    tokens, given = text(9, 9), frames(2)
    speaker = torch.tensor([[2], [0]]) if speakers else None
    lengths = {"src_lengths": full(2, 9), "target_lengths": full(2), "speaker": speaker}
    expected = stock(tokens, prev_output_tokens=given, **lengths)
    got = ours(tokens, prev_output_tokens=given, **lengths)
    for which in (0, 1):
        torch.testing.assert_close(got[which], expected[which], **CLOSE)
    for name in ("attn", "feature_out"):
        torch.testing.assert_close(got[2][name], expected[2][name], **CLOSE)


@every_mix
@torch.no_grad()
def test_steps_equal_the_parallel_pass_with_ragged_texts(flags: str) -> None:
    model = build(f"{flags} --target-length fixed --train-target-length fixed --target-length-fixed {STEPS}")
    encoded, given = encode(model, text(9, 5, 1)), frames(3)
    _, ends, extra = model.decoder(given, encoded, target_lengths=full(3))
    got = step_by_step(model, given, encoded, {})
    for value, expected in zip(got, (extra["feature_out"], ends, extra["attn"]), strict=True):
        torch.testing.assert_close(value, expected, **CLOSE)


@every_mix
@torch.no_grad()
def test_an_utterance_in_a_batch_equals_the_utterance_alone(flags: str) -> None:
    model = build(flags)
    lengths, steps = [9, 5, 1], torch.tensor([STEPS, 4, 7])
    tokens, given = text(*lengths), frames(3)
    for row, length in zip(given, steps, strict=True):
        row[length:] = 1e3
    together = model.decoder(given, encode(model, tokens), target_lengths=steps)
    for i, (length, number) in enumerate(zip(lengths, steps.tolist(), strict=True)):
        encoded = encode(model, tokens[i : i + 1, :length])
        alone = model.decoder(given[i : i + 1, :number], encoded, target_lengths=steps[i : i + 1])
        for which in (0, 1):
            torch.testing.assert_close(together[which][i, :number], alone[which][0], **CLOSE)


@every_mix
@torch.no_grad()
def test_streams_that_have_ended_may_be_dropped(flags: str) -> None:
    model = build(f"{flags} --target-length-ratio 2")
    encoded, given, state = encode(model, text(9, 5, 1)), frames(3), {}
    expected = step_by_step(model, given, encoded, {})
    step_by_step(model, given[:, :4], encoded, state)
    order = torch.tensor([2, 0])
    model.decoder.reorder_incremental_state_scripting(state, order)
    got = step_by_step(model, given[order, 4:], model.encoder.reorder_encoder_out(encoded, order), state)
    for value, whole, cut in zip(got, expected, ((), (), (slice(None),)), strict=True):
        whole = whole[order][:, 4:] if not cut else whole[order][:, :, 4:]
        torch.testing.assert_close(value, whole, **CLOSE)


@every_mix
@torch.no_grad()
def test_synthesis_continues_after_frames_that_were_given_at_once(flags: str) -> None:
    model = build(f"{flags} --target-length-ratio 2")
    encoded, given, state = encode(model, text(9, 5, 1)), frames(3), {}
    model.decoder.prime(given[:, :6], encoded, state)
    got = step_by_step(model, given[:, 6:], encoded, state, need_attn=False)
    expected = step_by_step(model, given, encoded, {}, need_attn=False)
    for which in (0, 1):
        torch.testing.assert_close(got[which], expected[which][:, 6:], **CLOSE)


@pytest.mark.parametrize("name", LINEAR)
@torch.no_grad()
def test_a_state_does_not_grow(name: str) -> None:
    cross = "--cross-attn-type relu" if name in IN_ORDER else ""
    model = build(f"{EVERYWHERE[name]} {cross} --target-length-ratio 2")
    encoded, state, sizes = encode(model, text(9, 5)), {}, []
    for frame in frames(2).split(1, dim=1):
        model.decoder(frame, encoded, incremental_state=state, need_attn=False)
        sizes.append(nbytes(state))
    assert len(set(sizes)) == 1


@every_mix
def test_guided_attention_reaches_every_mechanism(flags: str) -> None:
    """Its loss is finite, and trains the projections that determine the weights of the last layer."""
    model = build(flags).train()
    given, lengths, tokens = frames(2), full(2), text(9, 5)
    weights = model(tokens, tokens.ne(PAD).sum(1), given, target_lengths=lengths, speaker=None)[2]["attn"]
    sums = weights.sum(1)
    assert sums.median().item() == pytest.approx(1, abs=1e-4)
    assert sums.max() < 1 + 1e-4  # a head whose ReLU features are all zero sees no key
    assert not weights[1, 5:].any()
    GuidedAttentionLoss(0.4)(weights, tokens.ne(PAD).sum(1), lengths).backward()
    last = model.decoder.transformer_layers[-1].encoder_attn
    for projection in (last.q_proj, last.k_proj):
        assert projection.weight.grad.isfinite().all() and projection.weight.grad.abs().max() > 0


def test_weights_are_computed_only_where_they_are_used() -> None:
    model = build()
    model.decoder.guided = False
    inputs = {"src_lengths": full(1, 3), "prev_output_tokens": frames(1), "target_lengths": full(1), "speaker": None}
    assert model(text(3), **inputs)[2]["attn"] is not None
    assert model.train()(text(3), **inputs)[2]["attn"] is None


@torch.no_grad()
def test_weights_must_be_asked_for_from_the_first_step_on() -> None:
    model, state = build(), {}
    encoded = encode(model, text(3))
    model.decoder(frames(1, 1), encoded, incremental_state=state, need_attn=False)
    with pytest.raises(ValueError, match="set it from the first one on"):
        model.decoder(frames(1, 1), encoded, incremental_state=state)


@torch.no_grad()
def test_an_unknown_length_is_an_error_only_where_it_is_needed() -> None:
    assert build().decoder.expect_length(encode(build(), text(3))) is None
    model = build("--attn-type cosformer")
    with pytest.raises(ValueError, match="measured no target length"):
        model.decoder.expect_length(encode(model, text(3)))
    model.train()(text(4), full(1, 4), frames(1, 8), target_lengths=full(1, 8), speaker=None)
    assert model.eval().decoder.expect_length(encode(model, text(3))).tolist() == [6]


@pytest.mark.parametrize("site", ["encoder", "decoder", "cross"])
def test_a_mechanism_that_forgets_that_it_needs_lengths_is_refused_in_training(site: str, monkeypatch) -> None:
    monkeypatch.setattr(CosFormer, "needs_lengths", False)
    model = build(f"--{site}-attn-type cosformer").train()
    with pytest.raises(ValueError, match="the layout has no lengths: set needs_lengths = True in the mechanism"):
        model(text(4), full(1, 4), frames(1, 8), target_lengths=full(1, 8), speaker=None)


@torch.no_grad()
def test_durations_sum_to_the_length() -> None:
    model = build("--attn-type cosformer --length-predictor --target-length predicted")
    predictor = model.decoder.length_rule.predictor
    torch.nn.init.zeros_(predictor.output.weight)
    torch.nn.init.constant_(predictor.output.bias, float(torch.tensor(6.0).log1p()))  # 6 frames a symbol, 2 a step
    model.decoder.length_rule.batches += 1
    assert model.decoder.expect_length(encode(model, text(9, 5, 1))).tolist() == [27, 15, 3]


def test_a_checkpoint_of_other_sizes_is_refused() -> None:
    with pytest.raises(UserError, match="another model"):
        build().load_state_dict(build("--prenet-dim 4").state_dict())


@pytest.mark.parametrize("name", sorted(IN_ORDER))
def test_a_mechanism_that_fades_is_refused_where_tokens_are_not_in_order(name: str) -> None:
    for site, message in (("encoder", "needs a simultaneous model with a chunked"), ("cross", "only to its own past")):
        with pytest.raises(ValueError, match=message):
            build(f"--{site}-attn-type {name}")


def test_stock_weights_initialise_every_mechanism() -> None:
    stock = build(model=TTSTransformerModel).state_dict()
    for name in LINEAR:
        model = build(EVERYWHERE[name])
        state = dict(stock)
        model.upgrade_state_dict(state)
        model.load_state_dict(state)
    assert SOFTMAX not in LINEAR
