"""The decoder: step by step it gives the scores of the parallel pass, for every mechanism, padding and beams."""

import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import nbytes
from mla_fairseq.models.decoder import TextDecoder
from tests.models.conftest import EVERYWHERE, FEATURES, LINEAR, MIXED, Build

TOKENS = 11
PAD = 1
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
ALL = EVERYWHERE | MIXED
COSFORMER = "--attn-type cosformer"
every_mix = pytest.mark.parametrize("flags", ALL.values(), ids=ALL)


def source(*lengths: int) -> dict[str, Tensor]:
    """Return a batch of random speech of these lengths in frames."""
    return {"src_tokens": torch.randn(len(lengths), max(lengths), FEATURES), "src_lengths": torch.tensor(lengths)}


def words(batch: int, length: int = TOKENS) -> Tensor:
    return torch.randint(4, 32, (batch, length))


def step_by_step(decoder: TextDecoder, tokens: Tensor, encoded: dict, state: dict, start: int = 0, **more) -> Tensor:
    """Return the scores of tokens from ``start`` on, one call each, on a state that holds those before."""
    steps = [
        decoder(tokens[:, : i + 1], encoded, incremental_state=state, **more)[0] for i in range(start, tokens.shape[1])
    ]
    return torch.cat(steps, dim=1)


@every_mix
@torch.no_grad()
def test_steps_equal_the_parallel_pass_with_ragged_sources(build: Build, flags: str) -> None:
    model = build(flags=f"{flags} --target-length fixed --target-length-fixed {TOKENS}").model.eval()
    encoded, tokens = model.encoder(**source(50, 33, 9)), words(3)
    expected = model.decoder(tokens, encoded)[0]
    torch.testing.assert_close(step_by_step(model.decoder, tokens, encoded, {}), expected, **CLOSE)


@every_mix
@torch.no_grad()
def test_streams_may_be_reordered_in_the_middle(build: Build, flags: str) -> None:
    model = build(flags=f"{flags} --target-length-ratio 0.7").model.eval()
    encoded, tokens, state = model.encoder(**source(50, 33, 9)), words(3), {}
    step_by_step(model.decoder, tokens[:, :6], encoded, state)
    order = torch.tensor([2, 0, 2, 1])
    model.decoder.reorder_incremental_state_scripting(state, order)
    encoded, tokens = model.encoder.reorder_encoder_out(encoded, order), tokens[order]
    got = step_by_step(model.decoder, tokens, encoded, state, start=6)
    expected = step_by_step(model.decoder, tokens, encoded, {})[:, 6:]
    torch.testing.assert_close(got, expected, **CLOSE)


@every_mix
@torch.no_grad()
def test_a_stream_in_a_batch_equals_the_stream_alone(build: Build, flags: str) -> None:
    model = build(flags=f"{flags} --target-length-ratio 0.7").model.eval()
    speech, tokens = source(50, 33, 9), words(3)
    together = step_by_step(model.decoder, tokens, model.encoder(**speech), {})
    for i, length in enumerate(speech["src_lengths"]):
        alone = {"src_tokens": speech["src_tokens"][i : i + 1, :length], "src_lengths": length.view(1)}
        got = step_by_step(model.decoder, tokens[i : i + 1], model.encoder(**alone), {})
        torch.testing.assert_close(got[0], together[i], **CLOSE)


@every_mix
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_padding_never_changes_a_sentence(build: Build, flags: str, training: bool) -> None:
    """Each sentence has its own length: it has the same scores in a padded batch as alone."""
    flags += " --dropout 0 --attention-dropout 0 --activation-dropout 0"
    model = build(flags=flags).model.double().train(training)
    speech, tokens, lengths = source(50, 33, 9), words(3), [TOKENS, 5, 1]
    speech["src_tokens"] = speech["src_tokens"].double()
    for row, length in zip(tokens, lengths, strict=True):
        row[length:] = PAD
    together = model(**speech, prev_output_tokens=tokens)[0]
    for i, length in enumerate(lengths):
        frames = int(speech["src_lengths"][i])
        alone = {"src_tokens": speech["src_tokens"][i : i + 1, :frames], "src_lengths": torch.tensor([frames])}
        got = model(**alone, prev_output_tokens=tokens[i : i + 1, :length])[0]
        torch.testing.assert_close(got[0], together[i, :length], rtol=0, atol=1e-9)


@every_mix
def test_no_score_depends_on_a_later_word(build: Build, flags: str) -> None:
    """The length is given, because the true one, which training uses, depends on later words."""
    model = build(flags=flags).model.double().eval()
    speech, tokens = source(40, 20), words(2)
    encoded = model.encoder(speech["src_tokens"].double(), speech["src_lengths"])
    lengths = torch.tensor([TOKENS, TOKENS])
    before = model.decoder(tokens, encoded, target_lengths=lengths)[0]
    changed = torch.cat((tokens[:, :6], words(2, TOKENS - 6)), dim=1)
    after = model.decoder(changed, encoded, target_lengths=lengths)[0]
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=0, atol=1e-12)
    assert (after[:, 6:] - before[:, 6:]).abs().max() > 1e-3


@torch.no_grad()
def test_beyond_the_expected_length_positions_stay_at_the_end(build: Build) -> None:
    model = build(flags="--attn-type cosformer --target-length fixed --target-length-fixed 4").model.eval()
    encoded, tokens = model.encoder(**source(50, 33)), words(2, 3 * 4)
    got = step_by_step(model.decoder, tokens, encoded, {})
    expected = model.decoder(tokens, encoded, target_lengths=torch.tensor([4, 4]))[0]
    assert got.isfinite().all()
    torch.testing.assert_close(got, expected, **CLOSE)


@torch.no_grad()
def test_the_expected_length_matters(build: Build) -> None:
    model = build(flags="--attn-type cosformer").model.eval()
    encoded, tokens = model.encoder(**source(50, 33)), words(2)
    short, long = (model.decoder(tokens, encoded, target_lengths=torch.tensor([n, n]))[0] for n in (4, 40))
    assert (short - long).abs().max() > 1e-3


@torch.no_grad()
def test_decoding_uses_the_ratio_that_training_measured(build: Build) -> None:
    model = build(flags="--decoder-attn-type cosformer").model
    encoded, tokens = model.eval().encoder(**source(40, 40)), words(2, 4)  # 10 states each
    model.train().decoder(tokens, encoded)  # 0.4 tokens per state
    model.eval()
    got = step_by_step(model.decoder, words(2, 6), encoded, state := {})
    assert got.isfinite().all()
    assert state["decoder"]["target_length"].tolist() == [4, 4]


@torch.no_grad()
def test_a_model_without_a_measured_ratio_is_refused(build: Build) -> None:
    model = build(flags="--attn-type cosformer").model.eval()
    with pytest.raises(ValueError, match="measured no target length"):
        step_by_step(model.decoder, words(2), model.encoder(**source(40, 20)), {})


@pytest.mark.parametrize("name", LINEAR)
@torch.no_grad()
def test_the_state_of_a_linear_mechanism_never_grows(build: Build, name: str) -> None:
    """It grows neither with the words nor with the speech: no keys and values are cached."""
    model = build(flags=f"--attn-type relu {EVERYWHERE[name]} --target-length-ratio 0.7").model.eval()
    sizes = set()
    for frames in (8, 400):
        encoded, tokens, state = model.encoder(**source(frames, frames)), words(2, 40), {}
        for length in range(1, 41):
            model.decoder(tokens[:, :length], encoded, incremental_state=state)
            sizes.add(nbytes(state))
    assert len(sizes) == 1
    assert set(state) == {"decoder"} | {
        f"decoder.layers.{i}.{site}" for i in (0, 1) for site in ("self_attn", "encoder_attn")
    }


@torch.no_grad()
def test_the_state_of_softmax_grows(build: Build) -> None:
    model = build().model.eval()
    encoded, tokens, state = model.encoder(**source(40)), words(1, 3), {}
    sizes = []
    for length in (1, 2, 3):
        model.decoder(tokens[:, :length], encoded, incremental_state=state)
        sizes.append(nbytes(state))
    assert sizes[0] < sizes[1] < sizes[2]


@every_mix
@torch.no_grad()
def test_cross_attention_weights_are_computed_only_for_a_named_layer(build: Build, flags: str) -> None:
    model = build(flags=flags).model.eval()
    encoded, tokens = model.encoder(**source(50, 33, 9)), words(3)
    assert model.decoder(tokens, encoded)[1]["attn"] == [None]
    weights = model.decoder(tokens, encoded, alignment_layer=1)[1]["attn"][0]
    assert weights.shape == (3, TOKENS, 13)
    assert weights.masked_select(encoded["encoder_padding_mask"][0][:, None]).abs().max() == 0
    assert weights.min() >= 0
    mass = weights.sum(-1)  # a head whose query has no positive feature sees no key
    assert mass.max() < 1 + 1e-5 and mass.min() > 0.1


WAITING = "--encoder-chunk-size 4 --fixed-pre-decision-ratio 2 --waitk-lagging 2 --source-length 30"


@pytest.mark.parametrize(
    ("arch", "flags"),
    [("s2t_transformer_mla", flags) for flags in ALL.values()]
    + [("s2t_transformer_simul_mla", f"{WAITING} {flags}") for flags in ("", "--attn-type relu", COSFORMER)],
)
@torch.no_grad()
def test_cross_attention_weights_of_steps_are_those_of_the_whole_target(build: Build, arch: str, flags: str) -> None:
    """Of wait-k too: the weights of states that are not read yet are zero."""
    model = build(arch, f"{flags} --target-length fixed --target-length-fixed {TOKENS}").model.eval()
    encoded, tokens, state = model.encoder(**source(50, 33, 9)), words(3), {}
    expected = model.decoder(tokens, encoded, alignment_layer=1)[1]["attn"][0]
    steps = [
        model.decoder(tokens[:, : i + 1], encoded, incremental_state=state, alignment_layer=1)[1]["attn"][0]
        for i in range(TOKENS)
    ]
    torch.testing.assert_close(torch.cat(steps, dim=1), expected, **CLOSE)


@torch.no_grad()
def test_cross_attention_weights_of_monotonic_steps_are_refused(build: Build) -> None:
    flags = "--encoder-chunk-size 4 --simul-type infinite_lookback"
    model = build("s2t_transformer_simul_mla", flags).model.eval()
    encoded, tokens = model.encoder(**source(50)), words(1, 1)
    with pytest.raises(
        ValueError, match=r"alignment_layer=1 is not supported .* give the whole target without a state"
    ):
        model.decoder(tokens, encoded, incremental_state={}, alignment_layer=1)


@torch.no_grad()
def test_features_are_what_the_output_layer_reads(build: Build) -> None:
    model = build().model.eval()
    encoded, tokens = model.encoder(**source(50)), words(1)
    features = model.decoder(tokens, encoded, features_only=True)[0]
    assert features.shape == (1, TOKENS, 16)
    torch.testing.assert_close(model.decoder.output_layer(features), model.decoder(tokens, encoded)[0])


@pytest.mark.parametrize("flags", EVERYWHERE.values(), ids=EVERYWHERE)
@torch.no_grad()
def test_half_precision_gives_nearly_the_same_scores(build: Build, flags: str) -> None:
    """``fairseq-train --fp16`` and ``fairseq-generate --fp16`` cast the whole model."""
    model = build(flags=f"{flags} --target-length-ratio 0.7").model.eval()
    speech, tokens = source(203, 150), words(2)
    encoded = model.encoder(**speech)
    expected = step_by_step(model.decoder, tokens, encoded, {})
    model.half()
    encoded = model.encoder(speech["src_tokens"].half(), speech["src_lengths"])
    got = step_by_step(model.decoder, tokens, encoded, {})
    assert got.dtype == model.decoder(tokens, encoded)[0].dtype == torch.half
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=2e-2)


@pytest.mark.parametrize("flags", EVERYWHERE.values(), ids=EVERYWHERE)
def test_autocast_gives_nearly_the_same_scores_and_gradients(build: Build, flags: str) -> None:
    """``--amp`` keeps the parameters in float32."""
    flags += " --target-length-ratio 0.7 --dropout 0 --attention-dropout 0 --activation-dropout 0"
    model, speech, tokens = build(flags=flags).model, source(203, 150), words(2)

    def learn() -> tuple[Tensor, Tensor]:
        model.zero_grad()
        model(**speech, prev_output_tokens=tokens)[0].float().log_softmax(-1)[..., 7].sum().backward()
        with torch.no_grad():
            scores = step_by_step(model.decoder, tokens, model.encoder(**speech), {})
        gradients = [p.grad.flatten() for n, p in model.named_parameters() if "k_proj.bias" not in n]
        return scores, torch.cat(gradients)

    expected, exact = learn()
    with torch.autocast("cpu", torch.bfloat16):
        got, rough = learn()
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=0.1)
    assert torch.cosine_similarity(rough, exact, dim=0) > 0.99
