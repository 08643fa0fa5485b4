"""The length rule: given and measured lengths, what a checkpoint keeps, and its errors."""

from argparse import Namespace

import pytest
import torch

from mla_fairseq.models.length import LengthRule
from mla_fairseq.models.length_options import LengthOptions, length_options
from mla_fairseq.models.simul import set_simul_defaults
from tests.models.conftest import Build

STATES = torch.tensor([1, 10, 25])


def test_a_given_ratio_counts_tokens_per_state() -> None:
    assert LengthRule(LengthOptions(target_length_ratio=0.5))(STATES).tolist() == [1, 5, 12]


def test_a_fixed_length_is_the_same_for_every_sentence() -> None:
    rule = LengthRule(LengthOptions(target_length="fixed", target_length_fixed=40))
    assert rule(STATES).tolist() == [40, 40, 40]


def test_a_length_is_at_least_one_token() -> None:
    assert LengthRule(LengthOptions(target_length_ratio=0.01))(STATES).tolist() == [1, 1, 1]


def test_a_measured_ratio_is_the_mean_over_all_states() -> None:
    rule = LengthRule(LengthOptions())
    rule.observe(torch.tensor([3, 5]), torch.tensor([10, 10]))
    rule.observe(torch.tensor([12]), torch.tensor([20]))
    assert rule.ratio == pytest.approx(20 / 40)
    assert rule(STATES).tolist() == [1, 5, 12]


def test_a_given_ratio_overrides_a_measured_one() -> None:
    rule = LengthRule(LengthOptions(target_length_ratio=2.0))
    rule.observe(torch.tensor([10]), torch.tensor([10]))
    assert rule(STATES).tolist() == [2, 20, 50]


def test_a_ratio_that_was_not_measured_is_an_error_with_two_fixes() -> None:
    with pytest.raises(ValueError, match=r"--target-length-ratio .*--model-overrides .*target_length_ratio"):
        LengthRule(LengthOptions())(STATES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"target_length": "guess"}, "--target-length must be .* but is 'guess'", id="unknown-rule"),
        pytest.param(
            {"target_length_ratio": -0.5}, "--target-length-ratio must be .* but is -0.5", id="negative-ratio"
        ),
        pytest.param({"target_length_fixed": 0}, "--target-length-fixed must be .* but is 0", id="no-length"),
    ],
)
def test_a_bad_option_is_named_with_its_value(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LengthRule(LengthOptions(**options))


@pytest.mark.parametrize("cast", [torch.nn.Module.half, torch.nn.Module.bfloat16], ids=["float16", "bfloat16"])
def test_a_long_training_in_half_precision_is_counted_to_the_token(cast) -> None:
    rule = cast(LengthRule(LengthOptions()))
    for _ in range(50):
        rule.observe(torch.full((3000,), 31), torch.full((3000,), 125))
    assert rule.ratio == 31 / 125


def test_a_rule_moves_with_its_model() -> None:
    assert LengthRule(LengthOptions()).to("meta").tokens_and_states.is_meta


def test_a_checkpoint_keeps_what_was_measured() -> None:
    rule, other = LengthRule(LengthOptions()), LengthRule(LengthOptions())
    rule.observe(torch.tensor([7]), torch.tensor([20]))
    other.load_state_dict(rule.state_dict())
    assert other.ratio == 7 / 20


def test_training_measures_and_validation_does_not(build: Build) -> None:
    built = build(flags="--attn-type cosformer")
    batch = built.batch()
    built.model.train()(**batch["net_input"])
    states = built.model.encoder(**source(batch))["encoder_padding_mask"][0].logical_not().sum()
    tokens = batch["target_lengths"].sum()  # the end of the sentence included
    assert built.model.decoder.length_rule.tokens_and_states.tolist() == [tokens, states]
    built.model.eval()(**batch["net_input"])
    assert built.model.decoder.length_rule.tokens_and_states.tolist() == [tokens, states]


@pytest.mark.parametrize(
    ("flags", "has_rule"),
    [
        pytest.param("--attn-type relu", False, id="no-positions"),
        pytest.param("--encoder-attn-type cosformer", False, id="encoder-knows-its-length"),
        pytest.param("--decoder-attn-type cosformer", True, id="decoder"),
        pytest.param("--cross-attn-type cosformer", True, id="cross"),
    ],
)
def test_only_a_decoder_with_positions_has_a_rule(build: Build, flags: str, has_rule: bool) -> None:
    model = build(flags=flags).model
    assert (model.decoder.length_rule is not None) == has_rule
    assert ("decoder.length_rule.tokens_and_states" in model.state_dict()) == has_rule


def source(batch: dict) -> dict:
    """Return the encoder's inputs in a batch."""
    return {name: batch["net_input"][name] for name in ("src_tokens", "src_lengths")}


def test_options_of_older_checkpoints_keep_their_values() -> None:
    args = Namespace(cosformer_length="fixed", cosformer_length_fixed=40, cosformer_source_length=200)
    assert length_options(args) == LengthOptions("fixed", target_length_fixed=40, source_length=200)
    args = Namespace(cosformer_length="fixed", target_length="ratio")  # an override in decoding wins
    assert length_options(args).target_length == "ratio"


def test_defaults_of_simultaneous_models_leave_options_of_older_checkpoints() -> None:
    args = Namespace(cosformer_source_length=200)
    set_simul_defaults(args)
    assert length_options(args) == LengthOptions("fixed", source_length=200)
