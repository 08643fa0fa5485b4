"""``tacotron2_mla``: fairseq's loss, and lengths learnt from durations or from their sum."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq.criterions.tacotron2_loss import GuidedAttentionLoss, Tacotron2Criterion

from mla_fairseq.attention import Full, Layout, ReLUAttention, build_attention
from mla_fairseq.criterions.tacotron2_length import Tacotron2LengthCriterion
from mla_fairseq.models.checks import check_criterion
from mla_fairseq.models.length_predictor import DurationPredictor
from tests.models.test_tts_transformer_mla import BINS, PAD, PER_STEP, build, text

SETTINGS = {
    "sentence_avg": False,
    "use_guided_attention_loss": True,
    "guided_attention_loss_sigma": 0.4,
    "bce_pos_weight": 5.0,
    "ctc_weight": 0.0,
}
STEPS = torch.tensor([7, 4])


def criterion(weight: float = 1.0, guided: float = 1.0) -> Tacotron2LengthCriterion:
    return Tacotron2LengthCriterion(
        SimpleNamespace(), **SETTINGS, length_loss_weight=weight, guided_attention_loss_weight=guided
    )


def sample(durations: bool = False) -> dict:
    tokens, target = text(6, 3), torch.randn(2, 7, PER_STEP * BINS)
    shifted = torch.cat((torch.zeros(2, 1, PER_STEP * BINS), target[:, :-1]), dim=1)
    frames = torch.tensor([[3, 2, 4, 1, 4, 0], [5, 3, 0, 0, 0, 0]])
    return {
        "net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(PAD).sum(1), "prev_output_tokens": shifted},
        "speaker": None,
        "target": target,
        "target_lengths": STEPS,
        "durations": frames if durations else None,
        "ntokens": int(STEPS.sum()),
        "nsentences": 2,
    }


def test_with_a_weight_of_0_it_is_fairseqs() -> None:
    model, batch = build("--length-predictor"), sample()
    stock = Tacotron2Criterion(SimpleNamespace(), **SETTINGS)
    expected, *_ = stock(model, batch)
    got, size, log = criterion(0.0)(model, batch)
    assert float(got) == pytest.approx(float(expected)) == pytest.approx(log["loss"] / size)
    assert size == int(STEPS.sum())


def test_durations_are_compared_symbol_by_symbol_without_padding() -> None:
    model, batch = build("--length-predictor"), sample(durations=True)
    batch["net_input"]["src_tokens"][1, 3:] = PAD
    difference = criterion(2.0)(model, batch)[0] - criterion(0.0)(model, batch)[0]
    encoded = model.encoder(batch["net_input"]["src_tokens"])
    expected = model.decoder.length_rule.predictor.durations(
        encoded["encoder_out"][0], batch["net_input"]["src_tokens"].ne(PAD)
    )
    true = batch["durations"].float().log1p()
    errors = torch.cat([expected[0] - true[0], expected[1, :3] - true[1, :3]])
    assert float(difference) == pytest.approx(2 * float(errors.abs().mean() + errors.square().mean()), rel=1e-4)


def test_guided_attention_is_weighted() -> None:
    model, batch = build("--length-predictor"), sample()
    (plain, size, log), (more, _, weighted) = (criterion(0.0, weight)(model, batch) for weight in (1.0, 40.0))
    assert weighted["attn_loss"] == pytest.approx(40 * log["attn_loss"], rel=1e-4) and log["attn_loss"] > 0
    assert float(more - plain) == pytest.approx(39 * log["attn_loss"] / size, rel=1e-3)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_seeing_no_key_does_not_lower_guided_attention(reduction: str) -> None:
    """It equals fairseq's loss for weights that sum to one; steps that see no key have the largest loss."""
    loss, symbols = criterion(guided=2.0).guided_attn, torch.tensor([6, 3])
    weights = torch.rand(2, 6, 7) * (torch.arange(6)[:, None] < symbols[:, None, None])
    weights = weights / weights.sum(1, keepdim=True)
    stock = GuidedAttentionLoss(SETTINGS["guided_attention_loss_sigma"])
    expected = 2 * float(stock(weights, symbols, STEPS, reduction))
    assert float(loss(weights, symbols, STEPS, reduction)) == pytest.approx(expected, rel=1e-5)
    assert expected < float(loss(0 * weights, symbols, STEPS, reduction))
    steps = float(STEPS.sum())
    pairs = float((symbols * STEPS).sum()) if reduction == "mean" else 1.0
    assert float(loss(0 * weights, symbols, STEPS, reduction)) == pytest.approx(2 * steps / pairs)


@pytest.mark.parametrize("mechanism", ["relu", "cosformer"])
def test_guided_attention_trains_steps_that_see_no_key(mechanism: str) -> None:
    """Queries and keys share no feature at first: the loss falls, and every step sees keys in the end."""
    torch.manual_seed(0)
    halves = torch.tensor([1.0, 1.0, -1.0, -1.0])
    q = (torch.rand(2, 1, 7, 4) * halves).requires_grad_()
    k = (torch.rand(2, 1, 6, 4) * -halves).requires_grad_()
    loss, attend, symbols = criterion().guided_attn, build_attention(mechanism, 4), torch.tensor([6, 3])
    layout = Layout.whole(Full(), 7, 6, key_mask=torch.arange(6) < symbols[:, None])
    optimizer = torch.optim.Adam((q, k), 0.05)
    values = []
    for _ in range(100):
        weights = attend.surrogate_weights(q, k, layout)
        values.append(loss(weights.mean(1).transpose(1, 2), symbols, STEPS))
        optimizer.zero_grad()
        values[-1].backward()
        optimizer.step()
    assert float(values[-1]) < float(values[0]) / 2
    assert bool((weights.sum(-1)[0, :, :7] > 0.99).all()) and bool((weights.sum(-1)[1, :, :4] > 0.99).all())


def test_the_criterion_asks_for_surrogate_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of the model's weights is the surrogate one, and with fairseq's criterion it is the plain one."""
    asked = []
    whole = ReLUAttention.surrogate_weights
    monkeypatch.setattr(ReLUAttention, "surrogate_weights", lambda *args: asked.append(1) or whole(*args))
    model, batch = build("--length-predictor --cross-attn-type relu"), sample(False)
    criterion()(model, batch)
    assert asked == [1]
    Tacotron2Criterion(SimpleNamespace(target_dictionary=None), False, True, 0.4, 5.0, 0.0)(model, batch)
    assert asked == [1]


@pytest.mark.parametrize("durations", [False, True])
def test_a_predictor_learns_lengths(durations: bool) -> None:
    """It learns from durations, or only from the number of frames."""
    torch.manual_seed(0)
    model, batch = build("--length-predictor --dropout 0"), sample(durations)
    if durations:
        batch["target_lengths"] = batch["durations"].sum(1) // PER_STEP
    predictor = model.decoder.length_rule.predictor
    optimizer = torch.optim.Adam(predictor.parameters(), 1e-3)
    loss = criterion()
    for _ in range(80):
        value, _, log = loss(model, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert log["length_error"] / 2 < 0.1


def test_the_encoder_learns_from_it_only_if_asked() -> None:
    for flag, reached in (("", False), ("--length-gradient", True)):
        model, batch = build(f"--length-predictor {flag}"), sample()
        with_length, without = (criterion(weight)(model, batch)[0] for weight in (1.0, 0.0))
        gradient = torch.autograd.grad(with_length - without, model.encoder.embed_tokens.weight)[0]
        assert bool(gradient.abs().max() > 1e-9) == reached


def test_a_model_without_a_predictor_is_refused_before_and_in_training() -> None:
    with pytest.raises(ValueError, match="give --length-predictor, or use --criterion tacotron2"):
        check_criterion(Namespace(criterion="tacotron2_mla"), build())
    with pytest.raises(ValueError, match="give --length-predictor"):
        criterion()(build(), sample())
    check_criterion(Namespace(criterion="tacotron2_mla"), build("--length-predictor"))
    with pytest.raises(ValueError, match="--length-loss-weight must be at least 0, but is -1"):
        criterion(-1)
    with pytest.raises(ValueError, match="--guided-attention-loss-weight must be at least 0, but is -2"):
        criterion(guided=-2)


def test_padding_does_not_change_durations() -> None:
    torch.manual_seed(0)
    model, states = DurationPredictor(6, frames_per_step=2, hidden=8).eval(), torch.randn(9, 2, 6)
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    together = model.durations(states, mask)
    torch.testing.assert_close(together[1, :4], model.durations(states[:4, 1:])[0])
    assert float(model(states, mask)[1]) == pytest.approx(float(model(states[:4, 1:])[0]), abs=1e-6)


def test_the_mean_error_is_over_sentences() -> None:
    from fairseq.logging import metrics

    logs = [
        {"sample_size": 4, "nsentences": 1, "length_loss": 4 * 1.0, "length_error": 0.5},
        {"sample_size": 12, "nsentences": 3, "length_loss": 12 * 2.0, "length_error": 0.3},
    ]
    with metrics.aggregate("test", new_root=True) as values:
        Tacotron2LengthCriterion.reduce_metrics(logs)
    found = values.get_smoothed_values()
    assert found["length_error"] == pytest.approx(0.2) and found["length_loss"] == pytest.approx(1.75)
