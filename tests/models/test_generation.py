"""fairseq's beam search over these models: its scores are those of the parallel pass, batched or alone."""

from argparse import Namespace

import pytest
import torch
from torch import Tensor

from tests.models.conftest import EVERYWHERE, IN_ORDER, MIXED, Build, Built

ALL = EVERYWHERE | MIXED
BEAM = 5


@pytest.fixture(scope="module")
def trained(build: Build):
    """``trained(flags)``: a model after a few updates on the corpus, so that its hypotheses differ in score."""
    made = {}

    def train(flags: str) -> Built:
        built = build(flags=flags)
        criterion, batch = built.task.build_criterion(built.args), built.batch()
        optimizer = torch.optim.Adam(built.model.parameters(), lr=0.01)
        losses = []
        for _ in range(8):
            optimizer.zero_grad()
            loss, sample_size, _ = criterion(built.model.train(), batch)
            loss.backward()
            assert all(parameter.grad.isfinite().all() for parameter in built.model.parameters())
            losses.append(loss.item() / sample_size)
            optimizer.step()
        assert losses[-1] < losses[0]
        return built

    def trained(flags: str) -> Built:
        if flags not in made:
            made[flags] = train(flags)
        return made[flags]

    return trained


def translate(built: list[Built], batch: dict, prefix_size: int = 0, **options: float) -> list[dict]:
    """Return the best hypothesis of each sentence."""
    task, models = built[0].task, [each.model for each in built]
    generator = task.build_generator(models, Namespace(beam=BEAM, max_len_b=14, **options))
    prefix = batch["target"][:, :prefix_size] if prefix_size else None
    return [best for best, *_ in task.inference_step(generator, models, batch, prefix_tokens=prefix)]


@torch.no_grad()
def rescored(built: list[Built], batch: dict, i: int, tokens: Tensor) -> Tensor:
    """Return log-probabilities of a hypothesis in the parallel pass: the mean probabilities of the ensemble."""
    frames = batch["net_input"]["src_lengths"][i : i + 1]
    source = {"src_tokens": batch["net_input"]["src_tokens"][i : i + 1, : frames[0]], "src_lengths": frames}
    previous = tokens.roll(1).unsqueeze(0)  # fairseq begins a target with the symbol of its end
    probabilities = []
    for model in (each.model for each in built):
        encoded, rule = model.encoder(**source), model.decoder.length_rule
        states = torch.tensor([encoded["encoder_out"][0].shape[0]])
        expected = None if rule is None else rule(states)
        scores = model.decoder(previous, encoded, target_lengths=expected)[0]
        probabilities.append(scores.softmax(-1)[0].gather(1, tokens.unsqueeze(1)).squeeze(1))
    return torch.stack(probabilities).mean(0).log()


def check(built: list[Built], batch: dict, lenpen: float = 1.0, **options: float) -> list[dict]:
    """Translate a batch, and compare every score with the parallel pass over each sentence alone."""
    hypotheses = translate(built, batch, lenpen=lenpen, **options)
    for i, hypothesis in enumerate(hypotheses):
        expected = rescored(built, batch, i, hypothesis["tokens"])
        torch.testing.assert_close(hypothesis["positional_scores"], expected, rtol=1e-4, atol=1e-4)
        total = expected.sum() / len(expected) ** lenpen
        torch.testing.assert_close(hypothesis["score"], total, rtol=1e-4, atol=1e-4)
    return hypotheses


@pytest.mark.parametrize("flags", ALL.values(), ids=ALL)
def test_beam_search_scores_are_those_of_the_parallel_pass(trained, flags: str) -> None:
    built = trained(flags)
    batch = built.batch(split="dev")
    assert len(set(batch["net_input"]["src_lengths"].tolist())) > 1
    check([built], batch)


@pytest.mark.parametrize("flags", ALL.values(), ids=ALL)
def test_a_batch_gives_the_translations_of_its_sentences_alone(trained, flags: str) -> None:
    built = trained(flags)
    together = translate([built], built.batch(split="dev"))
    order = built.batch(split="dev")["id"].tolist()
    for i, index in enumerate(order):
        (alone,) = translate([built], built.batch(index, split="dev"))
        assert alone["tokens"].equal(together[i]["tokens"])
        torch.testing.assert_close(alone["score"], together[i]["score"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("flags", EVERYWHERE.values(), ids=EVERYWHERE)
def test_prefix_tokens_are_kept(trained, flags: str) -> None:
    built = trained(flags)
    batch = built.batch(split="dev")
    for hypothesis, target in zip(check([built], batch, prefix_size=2), batch["target"], strict=True):
        assert hypothesis["tokens"][:2].equal(target[:2])


@pytest.mark.parametrize("flags", EVERYWHERE.values(), ids=EVERYWHERE)
def test_a_length_penalty_gives_longer_hypotheses(trained, flags: str) -> None:
    built = trained(flags)
    batch = built.batch(split="dev")
    short, long = (
        sum(len(hypothesis["tokens"]) for hypothesis in check([built], batch, lenpen=lenpen)) for lenpen in (0.0, 3.0)
    )
    assert short < long


@pytest.mark.parametrize(
    "mix",
    [("softmax", "cosformer"), ("relu", "elu"), ("cosformer", "relu", "softmax")],
    ids="+".join,
)
def test_models_of_different_mechanisms_are_one_ensemble(trained, mix: tuple[str, ...]) -> None:
    built = [trained(EVERYWHERE[name]) for name in mix]
    batch = built[0].batch(split="dev")
    check(built, batch)
    check(built, batch, prefix_size=1, lenpen=2.0)


@pytest.mark.parametrize("flags", EVERYWHERE.values(), ids=EVERYWHERE)
def test_a_hypothesis_far_longer_than_expected_has_the_same_score(trained, flags: str) -> None:
    built = trained(flags)
    batch = built.batch(split="dev")
    hypotheses = check([built], batch, min_len=12)
    states = -(-batch["net_input"]["src_lengths"] // 4)
    assert all(len(hypothesis["tokens"]) > 12 for hypothesis in hypotheses)
    if built.model.decoder.length_rule is not None:
        assert built.model.decoder.length_rule(states).min() < 12


ANYWHERE = [name for name in EVERYWHERE if name not in IN_ORDER]
MIXES = [
    (ANYWHERE[i % len(ANYWHERE)], name, ANYWHERE[(i + step) % len(ANYWHERE)])
    for step in range(len(ANYWHERE))
    for i, name in enumerate(EVERYWHERE, start=step)
]
"""Every two mechanisms are together in one model, at the encoder, the decoder or cross-attention."""


@pytest.mark.slow
@pytest.mark.parametrize("mix", MIXES, ids="-".join)
def test_any_three_mechanisms_work_together(trained, mix: tuple[str, str, str]) -> None:
    sites = zip(("encoder", "decoder", "cross"), mix, strict=True)
    built = trained(" ".join(f"--{site}-attn-type {name}" for site, name in sites))
    check([built], built.batch(split="dev"))
