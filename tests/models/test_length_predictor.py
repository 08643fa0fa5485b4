"""The length predictor: it learns, ignores padding, and decoding expects the length of the rule."""

from argparse import Namespace

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from torch import Tensor

from mla_fairseq.criterions.optional_terms import OptionalTermsCriterion
from mla_fairseq.errors import UserError
from mla_fairseq.models.checks import CRITERION, LATENCY_CRITERION, check_criterion
from mla_fairseq.models.length import LengthRule
from mla_fairseq.models.length_options import LengthOptions
from mla_fairseq.models.length_predictor import LengthPredictor
from mla_fairseq.tasks.speech_to_text_mla import SpeechToTextMLATask
from tests.models.conftest import Build, Built
from tests.models.test_commands import check_hypotheses

FLAGS = "--attn-type cosformer --length-predictor"
TRAINED = f"{FLAGS} --criterion label_smoothed_cross_entropy_mla"
STATES = torch.tensor([10, 20])


def predictor(seed: int = 0) -> LengthPredictor:
    torch.manual_seed(seed)
    return LengthPredictor(6, hidden=8).eval()


def test_padding_is_ignored() -> None:
    model, states = predictor(), torch.randn(12, 2, 6)
    mask = torch.arange(12) < torch.tensor([[12], [7]])
    together = model(states, mask)
    assert float(together[1]) == pytest.approx(float(model(states[:7, 1:])[0]), abs=1e-6)
    states[7:, 1] = 1e3
    assert torch.equal(model(states, mask)[1], together[1])


def test_it_learns_the_tokens_per_state() -> None:
    """There are two types of states, one with three times as many tokens as the other."""
    torch.manual_seed(0)
    model = LengthPredictor(6, hidden=16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        dense = torch.randint(2, (32,))
        states = torch.randn(9, 32, 6) * 0.1 + dense[:, None]
        loss = (model(states) - torch.where(dense == 1, 0.9, 0.3).log()).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert model(torch.ones(9, 1, 6)).exp().item() == pytest.approx(0.9, rel=0.1)
    assert model(torch.zeros(9, 1, 6)).exp().item() == pytest.approx(0.3, rel=0.1)


def rule(name: str, train: str | None = None, noise: float = 0.0, **more: float) -> LengthRule:
    options = LengthOptions(
        target_length=name, train_target_length=train, target_length_fixed=7, target_length_ratio=0.5
    )
    return LengthRule(options, predictor=predictor() if name == "predicted" else None, noise=noise, **more)


@pytest.mark.parametrize(
    ("name", "expected"), [("fixed", [7, 7]), ("ratio", [5, 10]), ("predicted", [8, 5]), ("oracle", [3, 4])]
)
def test_decoding_expects_the_length_of_the_rule(name: str, expected: list[int]) -> None:
    asked, log_ratio = rule(name), torch.tensor([0.8, 0.25]).log()
    assert asked(STATES, log_ratio, torch.tensor([3, 4])).tolist() == expected


@pytest.mark.parametrize(
    ("train", "expected"),
    [(None, [3, 4]), ("oracle", [3, 4]), ("fixed", [7, 7]), ("ratio", [5, 10]), ("predicted", [8, 5])],
)
def test_training_may_have_another_rule(train: str | None, expected: list[int]) -> None:
    asked, true, log_ratio = rule("fixed", train), torch.tensor([3, 4]), torch.tensor([0.8, 0.25]).log()
    assert asked.of_whole_target(true, STATES, log_ratio).tolist() == expected
    assert asked.eval().of_whole_target(true, STATES, log_ratio).tolist() == expected


def test_noise_is_relative_and_only_in_training() -> None:
    asked, true = rule("fixed", noise=0.3), torch.full((4000,), 100)
    lengths = asked.of_whole_target(true, true).double().log()
    assert float(lengths.std()) == pytest.approx(0.3, rel=0.1)
    assert float(lengths.mean()) == pytest.approx(torch.tensor(100.0).log().item(), abs=0.03)
    assert torch.equal(asked.eval().of_whole_target(true, true), true)


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({"train_target_length": "guess"}, {}, "--train-target-length must be one of oracle, .* but is 'guess'"),
        ({"target_length": "predicted"}, {"streaming": True}, "--target-length must be fixed, but is 'predicted'"),
        (
            {"target_length": "fixed", "train_target_length": "oracle"},
            {"streaming": True},
            "--train-target-length must be fixed",
        ),
        ({}, {"noise": -1.0}, "--length-noise must be at least 0, but is -1.0"),
        (
            {"target_length": "fixed"},
            {"streaming": True, "noise": 0.1},
            "--length-noise must be 0 where lengths are fixed",
        ),
    ],
    ids=["unknown", "streaming-predicted", "streaming-oracle", "negative-noise", "streaming-noise"],
)
def test_flags_that_make_no_rule_are_refused(options: dict, more: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LengthRule(LengthOptions(**options), **more)


def test_an_oracle_without_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match="the target's length is not known here: decode a set with its references"):
        rule("oracle")(STATES)


def test_a_predictor_that_was_never_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="was never trained: train it with --length-predictor"):
        rule("predicted").check()


def criterion(built: Built, weight: float = 1.0) -> OptionalTermsCriterion:
    return OptionalTermsCriterion(built.task, False, 0.1, 0, False, weight)


def gradients(built: Built, weight: float) -> dict[str, Tensor]:
    built.model.zero_grad()
    criterion(built, weight).train()(built.model.train(), built.batch())[0].backward()
    return {name: p.grad.clone() for name, p in built.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("alone", [True, False], ids=["predictor alone", "encoder too"])
def test_the_loss_reaches_the_encoder_only_if_asked(build: Build, alone: bool) -> None:
    still = "--dropout 0 --attention-dropout 0 --activation-dropout 0"
    built = build(flags=f"{TRAINED} {still} {'' if alone else '--length-gradient'}")
    without, with_loss = (gradients(built, weight) for weight in (0.0, 5.0))
    assert with_loss["decoder.length_rule.predictor.output.bias"].abs().sum() > 0
    assert int(built.model.decoder.length_rule.batches) == 1, "a weight of 0 does not train it"
    encoder = [name for name in without if name.startswith("encoder.")]
    same = [torch.allclose(without[name], with_loss[name], rtol=1e-4, atol=1e-5) for name in encoder]
    assert all(same) == alone


def test_the_error_that_is_logged_is_relative(build: Build) -> None:
    built = build(flags=TRAINED)
    batch, model = built.batch(), built.model.eval()
    _, extra = model(**batch["net_input"])
    expected = extra["length_log_ratio"].exp() * extra["source_lengths"]
    true = batch["target_lengths"]
    error = ((expected - true).abs() / true).sum()
    log = criterion(built).eval()(model, batch)[2]
    assert float(log["length_error"]) == pytest.approx(float(error), rel=1e-4)
    assert int(model.decoder.length_rule.batches) == 0, "validation does not train it"


def test_without_further_outputs_the_loss_is_that_of_fairseq(build: Build) -> None:
    built = build(flags="--attn-type cosformer")
    stock = LabelSmoothedCrossEntropyCriterion(built.task, False, 0.1, 0, False)
    losses = [loss.eval()(built.model.eval(), built.batch()) for loss in (criterion(built), stock)]
    assert float(losses[0][0]) == float(losses[1][0])
    logged = {name: value for name, value in losses[0][2].items() if "gap" not in name}  # the gap is one for any model
    assert (losses[0][1], logged) == losses[1][1:]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"criterion": "tacotron2_mla"}, "the model has none: give --length-predictor"),
        ({"criterion": LATENCY_CRITERION}, "latency terms need a model with monotonic attention"),
        (
            {"criterion": CRITERION, "latency_avg_weight": 0.0, "latency_var_weight": 0.1},
            "latency terms need a model with monotonic attention",
        ),
    ],
)
def test_a_criterion_that_does_not_fit_is_refused_before_training(build: Build, flags: dict, message: str) -> None:
    built = build(flags="--attn-type cosformer")
    with pytest.raises(ValueError, match=message):
        check_criterion(Namespace(**flags), built.model)
    for name in ("label_smoothed_cross_entropy", CRITERION):
        check_criterion(Namespace(criterion=name, latency_avg_weight=0.0), built.model)


def test_both_terms_of_one_model_add_up(build: Build) -> None:
    """A predictor beside monotonic attention; no model has both yet, the criterion does not care."""
    built = build(flags=TRAINED)
    loss, batch = criterion(built).eval(), built.batch()
    scores, extra = built.model.eval()(**batch["net_input"])
    tokens = batch["target"].shape[1]
    extra |= {"delays": torch.arange(1.0, tokens + 1).expand(len(scores), 2, tokens)}
    names = [name for _, logged in loss.terms(built.model, extra, batch) for name in logged]
    assert names == ["length_error", "latency", "delays_var"]


@pytest.mark.parametrize("flags", ["--length-predictor", "--target-length predicted --train-target-length predicted"])
def test_a_predictor_that_the_criterion_does_not_train_is_refused(build: Build, flags: str) -> None:
    model = build(flags=f"--attn-type cosformer {flags}").model
    with pytest.raises(ValueError, match=r"trains no length predictor.*--criterion label_smoothed_cross_entropy_mla"):
        check_criterion(Namespace(criterion="label_smoothed_cross_entropy"), model)
    check_criterion(Namespace(criterion=CRITERION), model)


def test_a_streaming_model_refuses_a_predictor(build: Build) -> None:
    with pytest.raises(ValueError, match="--length-predictor is not supported in a simultaneous model"):
        build("convtransformer_simul_mla", f"{FLAGS} --source-length 100 --target-length fixed")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--length-noise nan", "--length-noise must be at least 0, but is nan"),
        ("--target-length-ratio inf", "--target-length-ratio must be at least 0, but is inf"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(build: Build, flags: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(flags=f"--attn-type cosformer {flags}")


@pytest.mark.parametrize("name", ["oracle", "predicted", "ratio", "fixed"])
def test_a_trained_model_decodes_with_every_rule(train, generate, name: str) -> None:
    check_hypotheses(generate(train(TRAINED), "--model-overrides", str({"target_length": name})))


@pytest.mark.parametrize("name", ["predicted", "ratio"])
def test_training_may_use_the_rule_of_decoding(train, generate, name: str) -> None:
    flags = f"{TRAINED} --target-length {name} --train-target-length predicted --length-noise 0.1"
    check_hypotheses(generate(train(flags)))


def test_a_checkpoint_without_a_predictor_is_reported(train, generate) -> None:
    done = generate(train("--attn-type cosformer"), "--model-overrides", str({"target_length": "predicted"}))
    assert done.code == 1
    assert "error: this model's length predictor was never trained" in done.last_line


def test_a_set_without_references_has_no_oracle(build: Build) -> None:
    built = build(flags="--attn-type cosformer --target-length oracle")
    task = Namespace(target_dictionary=built.task.target_dictionary, args=Namespace())
    with pytest.raises(UserError, match="needs references, and the set has none"):
        SpeechToTextMLATask.decoding_inputs(task, [built.model], {"target": None})
