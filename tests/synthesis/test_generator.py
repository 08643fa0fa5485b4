"""Synthesis: a batch gives the same as each text alone, and every utterance ends."""

import pytest
import torch
from torch import Tensor

from mla_fairseq.models.tts_transformer_mla import TTSTransformerMLAModel
from mla_fairseq.synthesis.generator import Synthesizer, decode, refine
from mla_fairseq.synthesis.limits import Limits
from tests.models.conftest import EVERYWHERE
from tests.models.test_tts_transformer_mla import BINS, PAD, PER_STEP, build, text

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
TEXTS = (9, 5, 1)
FLAGS = "--target-length-ratio 3 --dropout 0"


def inputs(tokens: Tensor) -> dict[str, Tensor]:
    return {"src_tokens": tokens, "src_lengths": tokens.ne(PAD).sum(1)}


def talkative(flags: str, seed: int = 0) -> TTSTransformerMLAModel:
    """Build a model that ends the utterances of a batch at different steps."""
    model = build(f"{flags} {FLAGS}", seed)
    torch.nn.init.normal_(model.decoder.eos_proj.weight, std=1.0)
    torch.nn.init.constant_(model.decoder.eos_proj.bias, -1.0)
    model.decoder.pos_emb_alpha.data.fill_(3.0)
    return model


def reference(model: TTSTransformerMLAModel, tokens: Tensor, limits: Limits) -> tuple[Tensor, Tensor]:
    """Decode one utterance without a state: each step computes all steps before it again."""
    encoded = model.encoder(**inputs(tokens))
    expected = model.decoder.length_rule(encoded["encoder_out"][0].new_tensor([tokens.shape[1]]).long())
    most = limits.steps(int(expected))
    model.decoder.length_rule.train_rule = "ratio"
    given = torch.zeros(1, 1, PER_STEP * BINS)
    while True:
        steps = torch.tensor([given.shape[1]])
        refined, end, extra = model.decoder(given, encoded, target_lengths=steps)
        if end[0, -1].sigmoid() > limits.threshold or given.shape[1] == most:
            return refined.reshape(-1, BINS), extra["attn"][0]
        given = torch.cat((given, extra["feature_out"][:, -1:]), dim=1)


@pytest.mark.parametrize("flags", EVERYWHERE.values(), ids=EVERYWHERE)
@torch.no_grad()
def test_a_batch_is_each_text_decoded_alone_without_a_state(flags: str) -> None:
    tokens, limits = text(*TEXTS), Limits(max_ratio=1.0, slack=4)
    model = talkative(flags)
    utterances = decode(model, inputs(tokens), limits, need_attn=True)
    frames = refine(model, utterances)
    for i, length in enumerate(TEXTS):
        expected, weights = reference(model, tokens[i : i + 1, :length], limits)
        torch.testing.assert_close(frames[i], expected, **CLOSE)
        torch.testing.assert_close(utterances[i].attn[:length], weights, **CLOSE)


@torch.no_grad()
def test_utterances_of_a_batch_end_at_different_steps() -> None:
    lengths = set()
    for seed in range(4):
        utterances = decode(talkative("", seed), inputs(text(*TEXTS)), Limits(max_steps=30, max_ratio=0))
        lengths |= {len(one.frames) for one in utterances if one.ended}
        for one in utterances:
            assert len(one.frames) == len(one.eos_prob)
            assert (one.eos_prob[:-1] <= 0.5).all()
            assert one.ended == bool(one.eos_prob[-1] > 0.5)
    assert len(lengths) > 1


@pytest.mark.parametrize(("ratio", "expected"), [(2.0, [38, 26, 14]), (0.0, [60, 60, 60]), (9.0, [60, 60, 28])])
@torch.no_grad()
def test_limits_end_an_utterance_that_the_model_does_not_end(ratio: float, expected: list[int]) -> None:
    """The model expects 1.5 steps per symbol: 14, 8 and 2 for 9, 5 and 1 symbols. Limits allow 10 more."""
    model = build("--target-length-ratio 1.5")
    torch.nn.init.constant_(model.decoder.eos_proj.bias, -1e3)
    utterances = decode(model, inputs(text(*TEXTS)), Limits(max_steps=60, max_ratio=ratio, slack=10))
    assert [len(one.frames) for one in utterances] == expected
    assert not any(one.ended for one in utterances)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 1.0}, "--eos-prob-threshold must be between 0 and 1, but is 1.0"),
        ({"max_steps": 0}, "number of decoder steps must be at least 1, but is 0"),
        ({"max_ratio": -1}, "--max-length-ratio must be at least 0, but is -1"),
    ],
)
def test_bad_limits_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limits(**settings)


@torch.no_grad()
def test_a_diverged_model_is_reported() -> None:
    model, tokens = build(FLAGS), text(*TEXTS)
    torch.nn.init.constant_(model.decoder.feat_proj.bias, torch.nan)
    generator = Synthesizer([model], lambda frames: frames.sum(1), Limits(max_steps=3))
    with pytest.raises(ValueError, match="not finite, because the training of this model diverged"):
        generator.generate(model, {"net_input": inputs(tokens), "speaker": None})


@pytest.mark.parametrize("forced", [False, True])
def test_the_generator_returns_what_fairseqs_returns(forced: bool) -> None:
    """Frames, not steps, without normalisation, and the recorded frames."""
    model, tokens = talkative(""), text(*TEXTS)
    steps = torch.tensor([7, 4, 2])
    target = torch.randn(3, 7, PER_STEP * BINS)
    shifted = torch.cat((torch.zeros(3, 1, PER_STEP * BINS), target[:, :-1]), dim=1)
    sample = {
        "net_input": inputs(tokens) | {"prev_output_tokens": shifted},
        "target": target,
        "target_lengths": steps,
        "speaker": None,
    }
    mean, std = torch.arange(BINS).float(), torch.full((BINS,), 2.0)
    generator = Synthesizer([model], lambda frames: frames.sum(1), Limits(max_steps=9), mean, std, forced)
    for i, one in enumerate(generator.generate(model, sample, has_targ=True)):
        frames = len(one["feature"])
        assert frames % PER_STEP == 0 and one["feature"].shape[1] == BINS
        assert one["eos_prob"].shape == one["alignment"].shape == one["waveform"].shape == (frames,)
        assert one["attn"].shape == (TEXTS[i], frames)
        assert not forced or frames == PER_STEP * steps[i]
        true = target[i, : steps[i]].reshape(-1, BINS) * std + mean
        torch.testing.assert_close(one["targ_feature"], true)
        torch.testing.assert_close(one["targ_waveform"], true.sum(1))
