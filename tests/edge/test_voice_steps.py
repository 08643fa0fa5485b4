"""Text to speech step by step with static shapes: steps equal the package's, for every mechanism and length."""

import itertools

import pytest
import torch
from fairseq.models.text_to_speech.tacotron2 import Prenet
from torch import Tensor
from torch.nn import functional as F

from mla_fairseq.edge.attention import CrossSite
from mla_fairseq.edge.drive import checked
from mla_fairseq.edge.drive_voice import decoded, encoded, refined
from mla_fairseq.edge.frames import FrameStep
from mla_fairseq.edge.postnet import MagnitudeStep, PostnetStep
from mla_fairseq.edge.text import TextStep
from mla_fairseq.models.tts_transformer_mla import TTSTransformerMLAModel
from mla_fairseq.speech.mel import MelSpectrogram
from tests.models.conftest import EVERYWHERE, MIXED
from tests.models.test_tts_transformer_mla import BINS, PAD, PER_STEP, STEPS, build, text

SYMBOLS = 10
EXACT = {"rtol": 1e-9, "atol": 1e-9}
RULES = ("--target-length-ratio 1.5", "--target-length predicted", "--target-length fixed --target-length-fixed 7")
ALL = list(zip((EVERYWHERE | MIXED).items(), itertools.cycle(RULES), strict=False))


def model(flags: str, speakers: int = 0) -> TTSTransformerMLAModel:
    """Build a model in float64."""
    built = build(flags, seed=1, speakers=speakers)
    if built.decoder.length_rule.predictor is not None:
        built.decoder.length_rule.batches.fill_(1)  # as if it were trained
    return built.double()


def steps(built: TTSTransformerMLAModel, capacity: int = STEPS) -> tuple[TextStep, FrameStep]:
    sites = [CrossSite(layer.encoder_attn, SYMBOLS, 0) for layer in built.decoder.transformer_layers]
    return TextStep(built, sites, SYMBOLS).eval(), FrameStep(built.decoder, sites, capacity).eval()


def reference(built: TTSTransformerMLAModel, tokens: Tensor, given: Tensor, **more: Tensor) -> tuple[Tensor, ...]:
    """Return the expected steps, and the frames and ends of the package's steps, each given other frames."""
    source, state = built.encoder(tokens.unsqueeze(0), **more), {}
    shifted = F.pad(given, (0, 0, 1, 0))[:-1]  # the first step is given none
    calls = [built.decoder(frame[None, None], source, incremental_state=state, need_attn=False) for frame in shifted]
    frames = torch.cat([extra["feature_out"][0] for *_, extra in calls])
    return built.decoder.expect_length(source), frames, torch.cat([end[0, :, 0].sigmoid() for _, end, _ in calls])


@pytest.mark.parametrize(
    ("flags", "rule"), [(flags, rule) for (_, flags), rule in ALL], ids=[name for (name, _), _ in ALL]
)
@torch.no_grad()
def test_steps_equal_those_of_the_package(flags: str, rule: str) -> None:
    built = model(f"{flags} {rule}")
    encoder, decoder = steps(built)
    given = torch.randn(STEPS, PER_STEP * BINS, dtype=torch.float64)
    for length in (SYMBOLS, 3):
        tokens = text(length)[0]
        memories = encoded(encoder, tokens, checked(encoder))
        expected, frames, ends = reference(built, tokens, given)
        assert memories["expected"].tolist() == expected.tolist()
        found, found_ends = decoded(decoder, memories, given, checked(decoder))
        torch.testing.assert_close(found, frames, **EXACT)
        torch.testing.assert_close(found_ends, ends, **EXACT)


@torch.no_grad()
def test_a_speaker_and_a_source_length_are_data() -> None:
    built = model("--attn-type cosformer --target-length-ratio 2 --source-length 6", speakers=3)
    encoder, decoder = steps(built)
    given, tokens = torch.randn(4, PER_STEP * BINS, dtype=torch.float64), text(5)[0]
    found = []
    for speaker in range(3):
        memories = encoded(encoder, tokens, encoder.run, speaker)
        found.append(decoded(decoder, memories, given, decoder.run)[0])
        _, frames, _ = reference(built, tokens, given, speaker=torch.tensor([[speaker]]))
        torch.testing.assert_close(found[-1], frames, **EXACT)
    assert not torch.allclose(found[0], found[2])


@torch.no_grad()
def test_the_dropout_of_the_pre_net_is_data(monkeypatch: pytest.MonkeyPatch) -> None:
    built = model("--attn-type relu")
    encoder, decoder = steps(built)
    keep = torch.randint(2, decoder.data["keep"].shape) * 2.0

    def forward(prenet: Prenet, x: Tensor) -> Tensor:
        for layer, factor in zip(prenet.layers, keep, strict=True):
            x = layer(x) * factor
        return x

    monkeypatch.setattr(Prenet, "forward", forward)
    given, tokens = torch.randn(4, PER_STEP * BINS, dtype=torch.float64), text(5)[0]
    memories = encoded(encoder, tokens, encoder.run) | {"keep": keep}
    torch.testing.assert_close(decoded(decoder, memories, given, decoder.run)[0], reference(built, tokens, given)[1])


@torch.no_grad()
def test_a_model_that_expects_no_length_says_so() -> None:
    built = model("--attn-type relu")  # it has measured none, and needs none
    encoder, _ = steps(built)
    assert encoded(encoder, text(4)[0], encoder.run)["expected"].tolist() == [0]
    with pytest.raises(ValueError, match="this model has measured no target length in training"):
        steps(model("--attn-type cosformer"))


@pytest.mark.parametrize("chunk", [1, 3, 16])
@torch.no_grad()
def test_the_post_net_in_chunks_equals_the_post_net_of_all_steps(chunk: int) -> None:
    built, mean, std = model(""), torch.randn(BINS).double(), torch.rand(BINS).double()
    step = PostnetStep(built.decoder, chunk, mean, std).eval()
    for count in (1, 2, 3, step.delay, 29):
        frames = torch.randn(count, PER_STEP * BINS, dtype=torch.float64)
        expected = built.decoder.refine(frames.unsqueeze(0))[0].reshape(-1, BINS) * std + mean
        for known in (0, 2, 99):
            found = refined(step, frames, checked(step), known).reshape(-1, BINS)
            torch.testing.assert_close(found, expected, **EXACT)


@torch.no_grad()
def test_no_refined_frame_depends_on_later_steps() -> None:
    step = PostnetStep(model("").decoder, 4).eval()
    frames = torch.randn(40, PER_STEP * BINS, dtype=torch.float64)
    other = torch.cat((frames[:20], torch.randn(20, PER_STEP * BINS)))
    same = 20 - step.delay
    found, changed = (refined(step, x, step.run) for x in (frames, other))
    torch.testing.assert_close(found[:same], changed[:same], **EXACT)
    assert (found[same] != changed[same]).any()


def test_magnitudes_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    mel, frames = MelSpectrogram(n_mels=20), torch.randn(6, 20)
    monkeypatch.setattr("librosa.griffinlim", lambda magnitudes, **_: magnitudes)  # what it is given
    found = MagnitudeStep(mel, 6).run({"features": frames}, {})[0]["magnitudes"]
    torch.testing.assert_close(found.T, torch.from_numpy(mel.griffin_lim(frames)), rtol=1e-4, atol=1e-5)


def test_every_fresh_state_is_zero_and_every_step_has_examples() -> None:
    for step in (*steps(model("")), PostnetStep(model("").decoder, 2)):
        assert not any(tensor.any() for tensor in step.fresh.values())
        assert len(step.example) == len(step.inputs)
        found = dict(zip(step.outputs, step(*step.example), strict=True))
        for name, tensor in step.fresh.items():
            new = found[f"new.{name}" if name in step.rings else f"next.{name}"]
            assert new.shape == (*tensor.shape[:2], 1, tensor.shape[3]) if name in step.rings else tensor.shape


def test_symbols_are_padded_with_the_padding_symbol() -> None:
    assert steps(model(""))[0].encoder.padding_idx == PAD
