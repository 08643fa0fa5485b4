"""Models with monotonic attention: decoding does what training expects, for every type."""

import pytest
import torch

from mla_fairseq.models.checks import CRITERION, LATENCY_CRITERION
from mla_fairseq.models.simul import SIMUL_TYPES
from tests.models.conftest import Build

ARCH = "s2t_transformer_simul_mla"
TYPES = [name for name in SIMUL_TYPES if not name.startswith("waitk")]
FLAGS = "--fixed-pre-decision-ratio 2 --encoder-chunk-size 2 --source-length 60 --target-length-fixed 12"
CROSS = {"softmax": "", "relu": "--cross-attn-type relu", "cosformer": "--attn-type cosformer"}


def make_certain(model: torch.nn.Module) -> None:
    """Make every decision certain: p is 0 or 1."""
    with torch.no_grad():
        for layer in model.decoder.layers:
            layer.encoder_attn.q_proj_mono.weight.mul_(1e8)


@pytest.mark.parametrize("cross", CROSS)
@pytest.mark.parametrize("simul_type", TYPES)
def test_with_certain_decisions_training_equals_decoding(build: Build, simul_type: str, cross: str) -> None:
    built = build(ARCH, f"{FLAGS} --simul-type {simul_type} {CROSS[cross]}")
    model = built.model.double().eval()
    make_certain(model)
    sample = built.batch()
    frames, lengths, tokens = (
        sample["net_input"][name] for name in ("src_tokens", "src_lengths", "prev_output_tokens")
    )
    with torch.no_grad():
        encoder_out = model.encoder(frames.double(), lengths)
        expected, extra = model.decoder(tokens, encoder_out)
        state = {}
        steps = [model.decoder(tokens[:, : i + 1], encoder_out, state) for i in range(tokens.shape[1])]
    reads = torch.cat([step["attn"][0][:, 0] for _, step in steps], dim=1)
    real = tokens.ne(built.task.target_dictionary.pad())
    scores = torch.cat([scores for scores, _ in steps], dim=1)
    torch.testing.assert_close(scores[real], expected[real], rtol=0, atol=1e-8)
    assert torch.equal(reads[real], extra["delays"].amax(1).round()[real])
    assert len(reads[real].unique()) > 2


@pytest.mark.parametrize("simul_type", TYPES)
def test_delays_are_within_the_source_and_never_fall(build: Build, simul_type: str) -> None:
    built = build(ARCH, f"{FLAGS} --simul-type {simul_type}")
    sample = built.batch()
    extra = built.model.train()(**sample["net_input"])[1]
    delays, sources = extra["delays"], extra["source_lengths"]
    assert delays.shape[:2] == (len(sample["id"]), 2 * 2)
    assert bool((delays <= sources[:, None, None] + 1e-4).all() and (delays >= 1 - 1e-4).all())
    assert bool((delays.diff(dim=-1) > -1e-3).all())


def test_a_wait_k_model_initialises_a_monotonic_one(build: Build) -> None:
    """Its heads decide with the projections that they attended with."""
    trained = build(ARCH, FLAGS, seed=3).model
    model = build(ARCH, f"{FLAGS} --simul-type infinite_lookback --energy-bias").model
    model.load_state_dict(trained.state_dict(), strict=True)
    attention, before = (m.decoder.layers[0].encoder_attn for m in (model, trained))
    assert torch.equal(attention.q_proj_mono.weight, before.q_proj.weight)
    assert torch.equal(attention.q_proj.weight, before.q_proj.weight)
    assert float(attention.energy_bias) == -2


@pytest.mark.parametrize("name", [CRITERION, LATENCY_CRITERION])
@pytest.mark.parametrize("weights", ["--latency-avg-weight 0.3", "--latency-var-weight 0.2", ""])
def test_latency_is_part_of_the_loss(build: Build, name: str, weights: str) -> None:
    built = build(ARCH, f"{FLAGS} --simul-type infinite_lookback --criterion {name} --latency-update-after 5 {weights}")
    loss = built.task.build_criterion(built.args)
    sample, model = built.batch(), built.model.eval()
    before, size, log = loss(model, sample)
    model.set_num_updates(5)
    after, _, _ = loss(model, sample)
    expected = {
        "": 0.0,
        "--latency-avg-weight 0.3": 0.3 * log["latency"],
        "--latency-var-weight 0.2": 0.2 * log["delays_var"],
    }
    assert float(after - before) == pytest.approx(float(expected[weights]), rel=1e-3)
    assert size == sample["ntokens"]
    after.backward()
    assert any(bool(p.grad.any()) for name, p in model.named_parameters() if "mono" in name)


def test_the_latency_criterion_needs_monotonic_attention(build: Build) -> None:
    built = build(ARCH, f"{FLAGS} --criterion {CRITERION} --latency-avg-weight 0.1")
    loss = built.task.build_criterion(built.args)
    with pytest.raises(ValueError, match="latency terms need a model with monotonic attention: give --simul-type"):
        loss(built.model, built.batch())
