"""The boundary output: a stream gets what training got, and checkpoints with and without it load."""

import pytest
import torch

from mla_fairseq.models.boundary import BoundaryOutput
from mla_fairseq.models.checks import CRITERION, check_criterion, load_encoder
from mla_fairseq.streaming.boundary_stream import BoundaryStream
from tests.models.conftest import Build
from tests.models.test_streaming import ARCHS, LENGTHS, SIMUL, speech

FLAGS = f"{SIMUL} {LENGTHS} --boundary-weight 0.5"


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_a_stream_gets_the_output_of_the_parallel_pass(build: Build, arch: str) -> None:
    model, batch = build(arch, FLAGS).model.double().eval(), speech(61, 40)
    out = model.encoder(**batch, readable_frames=torch.tensor([30, 30]))
    expected, real = out["boundary"].sigmoid(), out["boundary_real"]
    assert real.sum(0).tolist() == [16, 10]
    for row, length in enumerate(batch["src_lengths"].tolist()):
        judge, state = BoundaryStream(model.encoder.boundary), {}
        frames = batch["src_tokens"][row : row + 1, :length]
        for start in range(0, length, 7):
            part = frames[:, start : start + 7]
            judge.push(model.encoder.stream(part, state, final=start + 7 >= length), final=start + 7 >= length)
        found = torch.from_numpy(judge.ended), torch.from_numpy(judge.speech)
        wanted = expected[real[:, row], row].float()
        torch.testing.assert_close(torch.stack(found, -1).float(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("arch", ARCHS)
@torch.no_grad()
def test_the_decoder_reads_no_more_than_it_may(build: Build, arch: str) -> None:
    """What follows changes the boundary output alone; shorter rows are masked."""
    model, batch = build(arch, FLAGS).model.double().eval(), speech(64, 48)
    readable = torch.tensor([33, 12])
    out = model.encoder(**batch, readable_frames=readable)
    assert out["encoder_out"][0].shape[0] == 9
    assert (~out["encoder_padding_mask"][0]).sum(1).tolist() == [9, 3]
    plain = model.encoder(**batch)["encoder_out"][0]
    torch.testing.assert_close(out["encoder_out"][0], plain[:9])
    tokens = torch.tensor([[2, 5, 6, 7], [2, 8, 9, 1]])
    scores, _ = model(**batch, prev_output_tokens=tokens, readable_frames=readable)
    other = batch | {"src_tokens": batch["src_tokens"].clone()}
    other["src_tokens"][0, 52:] += 1  # in later chunks than the last one that is read
    changed, _ = model(**other, prev_output_tokens=tokens, readable_frames=readable)
    torch.testing.assert_close(changed, scores)
    assert not torch.allclose(model.encoder(**other, readable_frames=readable)["boundary"], out["boundary"])


@pytest.mark.parametrize("arch", ARCHS)
def test_a_state_is_in_the_middle_of_its_frames(build: Build, arch: str) -> None:
    """The labels take state s to be at frame 4 s."""
    subsample = build(arch, FLAGS).model.encoder.subsample.double()
    frames = torch.randn(1, 80, 8, dtype=torch.double, requires_grad=True)
    states, _ = subsample(frames, torch.tensor([80]))
    for place in (3, 10):
        seen = torch.autograd.grad(states[place].sum(), frames, retain_graph=True)[0][0].abs().sum(1).nonzero()
        assert float(seen.double().mean()) == 4 * place


def test_checkpoints_with_and_without_it_load(build: Build, train) -> None:
    without, with_it = build(ARCHS[0], f"{SIMUL} {LENGTHS}").model, build(ARCHS[0], FLAGS).model
    own = with_it.encoder.boundary.linear.weight.clone()
    with_it.load_state_dict(without.state_dict())
    assert torch.equal(with_it.encoder.boundary.linear.weight, own)
    assert torch.equal(with_it.encoder.layer_norm.weight, without.encoder.layer_norm.weight)
    without.load_state_dict(with_it.state_dict())
    encoder = load_encoder(build(ARCHS[0], FLAGS).model.encoder, str(train()))
    assert isinstance(encoder.boundary, BoundaryOutput)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--boundary-weight -1", "--boundary-weight must be at least 0, but is -1"),
        ("--boundary-weight nan", "--boundary-weight must be at least 0, but is nan"),
        ("--boundary-weight 1 --encoder-chunk-size 0", "--boundary-weight 1.0 needs a chunked encoder: remove it"),
    ],
)
def test_a_boundary_that_cannot_be_is_refused(build: Build, flags: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(ARCHS[0], f"{SIMUL} {LENGTHS} {flags}")


def test_a_boundary_output_must_be_trained(build: Build) -> None:
    built = build(ARCHS[0], FLAGS)
    built.args.criterion = CRITERION
    with pytest.raises(ValueError, match="--boundary-weight learns from what follows a sentence: add --context-ratio"):
        check_criterion(built.args, built.model)
    built.args.context_ratio = 0.5
    check_criterion(built.args, built.model)
    built.args.criterion = "label_smoothed_cross_entropy"
    with pytest.raises(ValueError, match="trains no boundary output: use --criterion label_smoothed_cross_entropy_mla"):
        check_criterion(built.args, built.model)
