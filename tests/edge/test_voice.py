"""A text-to-speech model without PyTorch: it says what the package says, and ends where it ends."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from mla_fairseq.data.prepare_speech import Options, prepare
from mla_fairseq.edge.runtime.speaker import EdgeSpeaker
from mla_fairseq.synthesis.speaker import Speaker
from tests.data.voice import write_voice
from tests.edge.voice import save_voice
from tests.programs import run

TEXTS = ("abc def", "f", "fedcba abc")
FLAGS = "--decoder-attn-type cosformer --cross-attn-type relu"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voice")
    return prepare(write_voice(folder / "voice"), folder / "data", Options(dev=2, test=3)).parent


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_voice(data, tmp_path_factory.mktemp("model") / "model.pt", f"{FLAGS} --prenet-dropout 0")


@pytest.fixture(scope="module")
def folder(data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    done = run("mla-export", checkpoint, "--data", data, "--output", folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def speaker(folder: Path) -> EdgeSpeaker:
    return EdgeSpeaker.load(folder)


def test_the_runtime_says_what_the_package_says(data: Path, checkpoint: Path, speaker: EdgeSpeaker) -> None:
    package, steps = Speaker(checkpoint, data), set()
    for text in TEXTS:
        (expected,) = package.synthesize([text], need_attn=False)
        utterance = speaker.say(speaker.split(text))
        frames = np.concatenate(list(utterance))
        np.testing.assert_allclose(frames, expected["feature"].numpy(), atol=1e-4)
        assert utterance.ended == expected["ended"]
        assert len(frames) == 4 * utterance.steps
        samples = speaker.speak(frames)
        assert samples.shape == expected["waveform"].shape and np.isfinite(samples).all()
        steps.add((utterance.steps, utterance.ended))
    assert len(steps) > 1 and any(ended for _, ended in steps), "the texts must end at several steps"


def test_frames_are_there_while_the_decoder_still_works(speaker: EdgeSpeaker) -> None:
    speaker.limits, limits = type(speaker.limits)(threshold=0.999999, max_steps=60, max_ratio=0), speaker.limits
    utterance = speaker.say(speaker.split("abc def"))
    arrived = [(len(frames), utterance.steps) for frames in utterance]
    speaker.limits = limits
    assert arrived[0][1] == 16, "two chunks of eight steps: the post-net is ten steps behind"
    assert sum(frames for frames, _ in arrived) == 4 * 60
    assert not utterance.ended


def test_the_dropout_of_the_pre_net_follows_the_seed(speaker: EdgeSpeaker) -> None:
    symbols = speaker.split("abc")
    speaker.dropout = 0.5
    same, again, other = (np.concatenate(list(speaker.say(symbols, seed=seed)))[:8] for seed in (1, 1, 2))
    kept = np.concatenate([speaker.say(symbols, seed=3)._keep() for _ in range(9)])
    speaker.dropout = 0.0
    assert (same == again).all() and (same != other).any()
    assert set(np.unique(kept)) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("symbols", "name", "reason"),
    [
        (["a"] * 256, None, "the text has 256 symbols, but the model takes at most 255: split it into sentences"),
        (["x", "|", "y"], None, "the model knows no symbol of the text"),
        ([], None, "the model knows no symbol of the text"),
        (["a"], "anna", "--speaker is anna, but the model has one speaker: remove it"),
    ],
)
def test_what_a_model_cannot_say_is_reported(
    speaker: EdgeSpeaker, symbols: list[str], name: str | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        speaker.say(symbols, name)


def test_unknown_symbols_are_reported(speaker: EdgeSpeaker, caplog: pytest.LogCaptureFixture) -> None:
    speaker.say(["a", "x"])
    assert "symbols that the training set does not contain: x" in caplog.text


def test_a_config_that_lacks_a_number_is_reported(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    for name in ("limits", "delay", "spoken_text"):
        (tmp_path / "config.json").write_text(json.dumps({key: config[key] for key in config if key != name}))
        with pytest.raises(ValueError, match=f"config.json: {name} is not an? .*: copy the folder again"):
            EdgeSpeaker.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"limits": {"most": 3}}))
    with pytest.raises(ValueError, match=r"config.json does not fit its graphs .*most.*: copy the folder again"):
        EdgeSpeaker.load(tmp_path)


def test_mla_edge_writes_wav_files(folder: Path, tmp_path: Path) -> None:
    done = run("mla-edge", folder, "--text", "abc def", "f", "--symbols", "a b | c", "--output", tmp_path)
    assert done.code == 0, done.err
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0001.wav", "0002.wav", "0003.wav"]
    assert done.out.count("real-time factor") == 3
    with wave.open(str(tmp_path / "0001.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22050, 1, 2)
        assert file.getnframes() > 0


def test_mla_edge_reports_a_model_of_another_type(folder: Path, tmp_path: Path) -> None:
    done = run("mla-edge", folder, "speech.wav")
    assert done.code == 1
    assert "is a model of type 'text-to-speech', but 'speech-to-text' is needed" in done.last_line
