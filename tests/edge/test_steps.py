"""Steps with static shapes give what the model's own streaming gives, for every mechanism, however long the speech."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mla_fairseq.edge.drive import boundaries, checked, decode, encoded, read
from mla_fairseq.edge.encoder import EncoderStep
from mla_fairseq.models.s2t_transformer_mla import S2TTransformerMLAModel
from tests.edge.conftest import ARCHS, SIMUL, Steps
from tests.models.conftest import FEATURES, MIXED, STREAMING, Build

OPTIONS = {
    "window": "--encoder-left-chunks 2",
    "no-past": "--encoder-left-chunks 0",
    "other-kernels": "--conv-kernel-sizes 3,7",
    "one-convolution-of-one-frame": "--conv-kernel-sizes 1,5",
    "chunks-of-one": "--encoder-chunk-size 1",
    "norm-of-embedding": "--layernorm-embedding",
    "tied": "--share-decoder-input-output-embed",
}
every_arch = pytest.mark.parametrize("arch", ARCHS)
every_mechanism = pytest.mark.parametrize("flags", STREAMING.values(), ids=STREAMING)
Make = Callable[..., Steps]


def speech(frames: int, dtype: torch.dtype = torch.double) -> Tensor:
    return torch.randn(frames, FEATURES, generator=torch.Generator().manual_seed(frames)).to(dtype)


def streamed(model: S2TTransformerMLAModel, frames: Tensor) -> Tensor:
    """Return the encoder states (S, 1, C) of the model's own stream."""
    return model.encoder.stream(frames.unsqueeze(0), {}, final=True)


@torch.no_grad()
def check_decoder(steps: Steps, states: Tensor, reads: list[int], tolerance: float) -> None:
    """Compare scores where token t of each hypothesis reads ``reads[t]`` more states (S, 1, C)."""
    beam, position = len(steps.decoder.data["tokens"]), 0
    state, memories, own = {}, steps.reader.fresh, steps.decoder.fresh
    for t, count in enumerate(reads):
        new, position = states[position : position + count], position + count
        tokens = torch.arange(beam) + 4 + t * 7 % 20
        source = new.expand(-1, beam, -1) if len(new) else None
        expected = steps.model.decoder.step(tokens.unsqueeze(1), source, state)
        memories = read(steps.reader, new[:, 0], memories, checked(steps.reader))
        found, own = decode(steps.decoder, tokens, memories, own, checked(steps.decoder))
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


@torch.no_grad()
def check_steps(steps: Steps, lengths: tuple[int, ...]) -> None:
    """Compare the encoder on speech of these lengths, and the decoder on the last one."""
    for frames in lengths:
        x = speech(frames)
        states = streamed(steps.model, x)
        found = encoded(steps.encoder, x, checked(steps.encoder))
        torch.testing.assert_close(found, states[:, 0], rtol=0, atol=1e-9)
    check_decoder(steps, states, [4, 2, 0, 1, 7, 4, 0, 9, 3, 0, 0], 1e-9)


@every_arch
@every_mechanism
def test_steps_equal_the_model(steps: Make, arch: str, flags: str) -> None:
    check_steps(steps(flags, arch), (1, 3, 5, 16, 18, 61))


@pytest.mark.parametrize("flags", OPTIONS.values(), ids=OPTIONS)
def test_steps_equal_the_model_with_any_option(steps: Make, flags: str) -> None:
    check_steps(steps(flags), (1, 2, 4, 7, 61, 190))


@pytest.mark.parametrize("flags", MIXED.values(), ids=MIXED)
@torch.no_grad()
def test_sites_may_have_different_mechanisms(steps: Make, flags: str) -> None:
    found, x = steps(flags), speech(71)
    states = streamed(found.model, x)
    torch.testing.assert_close(encoded(found.encoder, x, checked(found.encoder)), states[:, 0], rtol=0, atol=1e-9)
    check_decoder(found, states, [2, 5, 0, 4, 3], 1e-9)


@pytest.mark.parametrize("flags", ["--attn-type relu", "--attn-type cosformer", ""])
def test_float32_is_as_exact(steps: Make, flags: str) -> None:
    found, x = steps(flags, double=False), speech(190, torch.float)
    with torch.no_grad():
        states = streamed(found.model, x)
        torch.testing.assert_close(encoded(found.encoder, x, checked(found.encoder)), states[:, 0], rtol=0, atol=1e-4)
    check_decoder(found, states, [4, 2, 0, 1, 7, 4, 0, 9, 3], 1e-4)


@pytest.mark.parametrize("flags", ["--attn-type cosformer", "", "--encoder-attn-type gla --decoder-attn-type gla"])
def test_every_hypothesis_is_decoded_as_alone(steps: Make, flags: str) -> None:
    found = steps(flags, beam=3)
    check_decoder(found, streamed(found.model, speech(60)).detach(), [4, 2, 0, 1], 1e-9)


@every_arch
@torch.no_grad()
def test_the_boundary_output_is_that_of_a_stream(build: Build, arch: str) -> None:
    model = build(arch, f"{SIMUL} --boundary-weight 1").model.double().eval()
    step = EncoderStep(model.encoder, FEATURES, 60)
    for frames in (1, 19, 90):
        states = streamed(model, speech(frames))
        found = boundaries(step, speech(frames), checked(step))
        torch.testing.assert_close(found, model.encoder.boundary(states)[:, 0], rtol=0, atol=1e-9)


@every_mechanism
def test_a_fresh_state_is_zeros(steps: Make, flags: str) -> None:
    found = steps(flags)
    assert all(not tensor.any() for tensor in found.fresh.values())
    for step in (found.encoder, found.reader, found.decoder):
        assert set(step.outputs) >= {f"{'new' if name in step.rings else 'next'}.{name}" for name in step.fresh}
        assert set(step.rings) == {name for name in step.fresh if name.endswith((".key", ".value"))}
        assert not set(step.inputs) & set(step.outputs)


def test_softmax_beyond_its_capacity_forgets_the_oldest(build: Build) -> None:
    """As a window does: the last states are those of an encoder whose past is limited to the capacity."""
    limited = build(ARCHS[0], f"{SIMUL} --encoder-left-chunks 3 --encoder-layers 1").model.double().eval()
    unlimited = build(ARCHS[0], f"{SIMUL} --encoder-layers 1").model.double().eval()
    step, x = EncoderStep(unlimited.encoder, FEATURES, 12), speech(200)
    with torch.no_grad():
        expected = streamed(limited, x)[:, 0]
        torch.testing.assert_close(encoded(step, x, checked(step)), expected, rtol=0, atol=1e-9)


def test_models_that_cannot_run_step_by_step_are_refused(build: Build) -> None:
    with pytest.raises(ValueError, match="full context"):
        EncoderStep(build("s2t_transformer_mla").model.encoder, FEATURES, 60)
    with pytest.raises(ValueError, match=r"--conv-kernel-sizes 4,5 has an even size"):
        EncoderStep(build(ARCHS[0], f"{SIMUL} --conv-kernel-sizes 4,5").model.encoder, FEATURES, 60)
