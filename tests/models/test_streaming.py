"""The streaming encoder equals the parallel one, wait-k decodes as it trains, and no output depends on later audio."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mla_fairseq.attention import fork, nbytes
from mla_fairseq.models.s2t_transformer_mla import S2TTransformerMLAModel
from tests.models.conftest import FEATURES, LINEAR, MIXED, STREAMING, Build

ARCHS = ("s2t_transformer_simul_mla", "convtransformer_simul_mla")
RATIO, CHUNK = 2, 4
SIMUL = f"--fixed-pre-decision-ratio {RATIO} --encoder-chunk-size {CHUNK} --waitk-lagging 1-3"
LENGTHS = "--target-length-fixed 11 --source-length 9"  # shorter than what follows: beyond them as well
PAD = 1
every_mix = pytest.mark.parametrize("flags", (STREAMING | MIXED).values(), ids=STREAMING | MIXED)
every_mechanism = pytest.mark.parametrize("flags", STREAMING.values(), ids=STREAMING)
every_arch = pytest.mark.parametrize("arch", ARCHS)
models: dict[tuple[str, str], S2TTransformerMLAModel] = {}


def simul(build: Build, flags: str = "", arch: str = ARCHS[0]) -> S2TTransformerMLAModel:
    """Return a model in float64, ready to decode; it is built once, because hypothesis asks for it many times."""
    if (arch, flags) not in models:
        models[arch, flags] = build(arch, f"{SIMUL} {LENGTHS} {flags}").model.double().eval()
    return models[arch, flags]


def speech(*lengths: int) -> dict[str, Tensor]:
    frames = torch.randn(len(lengths), max(lengths), FEATURES, dtype=torch.double)
    return {"src_tokens": frames, "src_lengths": torch.tensor(lengths)}


def streamed(model: S2TTransformerMLAModel, frames: Tensor, cuts: list[int]) -> Tensor:
    """Return the encoder states of frames (B, N, F) that arrive in pushes of these sizes, and the rest at the end."""
    state, states = {}, []
    for size in cuts:
        states.append(model.encoder.stream(frames[:, :size], state))
        frames = frames[:, size:]
    return torch.cat([*states, model.encoder.stream(frames, state, final=True)])


@every_arch
@every_mechanism
@given(length=st.integers(1, 70), cuts=st.lists(st.integers(0, 20), max_size=8))
@torch.no_grad()
def test_the_streaming_encoder_equals_the_parallel_one(
    build: Build, arch: str, flags: str, length: int, cuts: list[int]
) -> None:
    model, batch = simul(build, flags, arch), speech(length, length)
    expected = model.encoder(**batch)["encoder_out"][0]
    torch.testing.assert_close(streamed(model, batch["src_tokens"], cuts), expected, rtol=0, atol=1e-9)


@given(length=st.integers(1, 90), left=st.integers(0, 2), cuts=st.lists(st.integers(0, 30), max_size=5))
@torch.no_grad()
def test_a_limited_past_streams_too(build: Build, length: int, left: int, cuts: list[int]) -> None:
    model, batch = simul(build, f"--encoder-left-chunks {left}"), speech(length)
    expected = model.encoder(**batch)["encoder_out"][0]
    torch.testing.assert_close(streamed(model, batch["src_tokens"], cuts), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("flags", [*(STREAMING[name] for name in LINEAR), "--encoder-left-chunks 1"])
@torch.no_grad()
def test_the_state_of_the_encoder_does_not_grow(build: Build, flags: str) -> None:
    model, state = simul(build, flags), {}
    sizes = []
    for _ in range(12):
        model.encoder.stream(torch.randn(1, 4 * CHUNK, FEATURES, dtype=torch.double), state)
        sizes.append(nbytes(state))
    assert len(set(sizes[3:])) == 1


@torch.no_grad()
def test_forks_of_the_encoder_are_independent(build: Build) -> None:
    model, frames = simul(build, "--attn-type cosformer"), speech(64)["src_tokens"]
    state = {}
    model.encoder.stream(frames[:, :30], state)
    other = fork(state)
    expected = model.encoder.stream(frames[:, 30:], state, final=True)
    assert model.encoder.stream(frames[:, 30:], other, final=True).equal(expected)


@every_arch
@every_mechanism
def test_no_state_depends_on_audio_after_its_chunk(build: Build, arch: str, flags: str) -> None:
    """It depends on the last of the frames that ``frames_before`` counts for its chunk, and on none after it."""
    model, batch = simul(build, flags, arch), speech(100)
    needed = [model.encoder.frames_before(states) for states in (CHUNK, 2 * CHUNK)]
    for i, frames in enumerate(needed):
        used = torch.zeros(100, dtype=torch.bool)
        for _ in range(10):  # with few channels, all ReLUs may be zero at a frame
            batch["src_tokens"] = torch.randn_like(batch["src_tokens"]).requires_grad_()
            states = model.encoder(**batch)["encoder_out"][0]
            states[i * CHUNK : (i + 1) * CHUNK].square().sum().backward()
            used |= batch["src_tokens"].grad[0].abs().amax(-1) > 0
        assert not used[frames:].any()
        assert used[frames - 1]


@every_mix
@pytest.mark.parametrize("lagging", [1, 3, None])
@torch.no_grad()
def test_steps_equal_the_parallel_pass_under_wait_k(build: Build, flags: str, lagging: int | None) -> None:
    """Sources are ragged, and some end before the target does."""
    model = simul(build, flags)
    encoded, tokens = model.encoder(**speech(66, 33, 9), waitk_lagging=lagging), torch.randint(4, 32, (3, 11))
    expected = model.decoder(tokens, encoded)[0]
    state = {}
    steps = [model.decoder(tokens[:, : i + 1], encoded, incremental_state=state)[0] for i in range(11)]
    torch.testing.assert_close(torch.cat(steps, dim=1), expected, rtol=0, atol=1e-9)


@every_mechanism
@torch.no_grad()
def test_steps_of_a_session_equal_the_parallel_pass(build: Build, flags: str) -> None:
    model = simul(build, flags)
    encoded, tokens = model.encoder(**speech(66)), torch.randint(4, 32, (1, 11))
    expected = model.decoder(tokens, encoded)[0]
    source, state, read, steps = encoded["encoder_out"][0], {}, 0, []
    for i in range(11):
        upto = min(len(source), RATIO * (model.decoder.wait_k.middle + i))
        steps.append(model.decoder.step(tokens[:, i : i + 1], source[read:upto] if upto > read else None, state))
        read = upto
    torch.testing.assert_close(torch.stack(steps, dim=1), expected, rtol=0, atol=1e-9)


@every_mix
def test_no_word_depends_on_audio_that_has_not_arrived(build: Build, flags: str) -> None:
    """Check it by the gradient, and by changing later audio."""
    model, batch = simul(build, flags), speech(120)
    tokens = torch.randint(4, 32, (1, 8))
    for target in (0, 2, 5):
        read = RATIO * (model.decoder.wait_k.middle + target)
        arrived = model.encoder.frames_before(-(-read // CHUNK) * CHUNK)
        frames = batch["src_tokens"].detach().requires_grad_()
        scores = model(frames, batch["src_lengths"], tokens)[0]
        scores[0, target].square().sum().backward()
        used = frames.grad[0].abs().amax(-1) > 0
        assert used.any() and not used[arrived:].any()
        with torch.no_grad():  # with gradients, learned positions are computed in another way and round differently
            scores = model(frames, batch["src_lengths"], tokens)[0]
            frames[:, arrived:] += 100 * torch.randn_like(frames[:, arrived:])
            changed = model(frames, batch["src_lengths"], tokens)[0]
        assert changed[0, : target + 1].equal(scores[0, : target + 1])


@every_mechanism
def test_padding_never_changes_a_sentence_in_training(build: Build, flags: str) -> None:
    flags += " --dropout 0 --attention-dropout 0 --activation-dropout 0 --waitk-lagging 2"
    model = build(ARCHS[0], f"{SIMUL} {LENGTHS} {flags}").model.double().train()
    batch, tokens = speech(66, 33, 9), torch.randint(4, 32, (3, 11))
    for row, length in zip(tokens, [11, 5, 1], strict=True):
        row[length:] = PAD
    together = model(**batch, prev_output_tokens=tokens)[0]
    for i, (frames, length) in enumerate(zip(batch["src_lengths"], [11, 5, 1], strict=True)):
        got = model(batch["src_tokens"][i : i + 1, :frames], frames.view(1), tokens[i : i + 1, :length])[0]
        torch.testing.assert_close(got[0], together[i, :length], rtol=0, atol=1e-9)


def test_training_draws_every_k_of_the_range(build: Build) -> None:
    model, batch = simul(build, "--dropout 0").train(), speech(90)
    tokens = torch.randint(4, 32, (1, 3))
    outputs = {float(model(**batch, prev_output_tokens=tokens)[0].sum()) for _ in range(40)}
    model.eval()
    fixed = [float(model.decoder(tokens, model.encoder(**batch, waitk_lagging=k))[0].sum()) for k in (1, 2, 3)]
    assert len(set(fixed)) == 3
    assert outputs == set(fixed)


def test_the_last_norm_is_applied(build: Build) -> None:
    """fairseq's ConvTransformer builds one, but does not apply it."""
    model = simul(build, "", ARCHS[1])
    states = model.encoder(**speech(50))["encoder_out"][0]
    torch.testing.assert_close(states.mean(-1), torch.zeros_like(states[..., 0]), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--fixed-pre-decision-ratio 0 --encoder-chunk-size 4", "--fixed-pre-decision-ratio must be at least 1"),
        ("--encoder-chunk-size -2", "--encoder-chunk-size must be at least 0"),
        ("--attn-type relu --encoder-left-chunks 2", "a linear encoder cannot forget"),
        ("--attn-type cosformer --target-length ratio", "--target-length must be fixed, but is 'ratio'"),
    ],
)
def test_wrong_flags_are_named(build: Build, flags: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(ARCHS[0], flags)


@pytest.mark.parametrize(
    ("lagging", "message"),
    [
        ("five", "a number such as 3, or a range such as 1-9, but is 'five'"),
        ("0", "1 <= LOWEST <= HIGHEST, but is 0-0"),
        ("9-1", "1 <= LOWEST <= HIGHEST, but is 9-1"),
    ],
)
def test_a_wrong_k_is_named(build: Build, capsys: pytest.CaptureFixture, lagging: str, message: str) -> None:
    with pytest.raises(SystemExit):
        build(ARCHS[0], f"--waitk-lagging {lagging}")
    assert message in capsys.readouterr().err.rpartition("argument --waitk-lagging: must be ")[2]


def test_a_source_length_must_be_given(build: Build) -> None:
    model = build(ARCHS[0], "--attn-type cosformer --source-length 0").model
    with pytest.raises(ValueError, match="--source-length must be at least 1, but is 0"):
        model.encoder(**{name: x.float() if x.is_floating_point() else x for name, x in speech(30).items()})


def test_a_full_context_encoder_neither_streams_nor_waits(build: Build) -> None:
    model = build(ARCHS[0], "--encoder-chunk-size 0").model
    with pytest.raises(ValueError, match="to stream, train it with --encoder-chunk-size"):
        model.encoder.stream(torch.zeros(1, 10, FEATURES), {})
    with pytest.raises(ValueError, match="audio that has not arrived yet"):
        model.check_lagging(3)
    with pytest.raises(ValueError, match="offline model"):
        build().model.check_lagging(3)
