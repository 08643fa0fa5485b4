"""Sessions of an exported model emit what sessions of the model emit, however the audio arrives."""

import json
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from mla_fairseq.edge.runtime.model import EdgeTranslator
from mla_fairseq.streaming import (
    AlignAttPolicy,
    Emission,
    EnergyDetector,
    HoldPolicy,
    IncrementalSession,
    LocalAgreementPolicy,
    LongSession,
    MonotonicPolicy,
    OfflineSession,
    Policy,
    SearchOptions,
    Session,
    WaitKPolicy,
    WholeSourcePolicy,
)
from mla_fairseq.streaming.choice import begin_long, suitable
from mla_fairseq.streaming.offline_policies import OfflinePolicy
from tests.edge.test_audio import Interrupted
from tests.edge.test_torch_free import run_blocked
from tests.programs import run
from tests.streaming.conftest import noise
from tests.streaming.test_long import STREAM, voice

BEAM = 3
BOUNDARY = "--attn-type cosformer --boundary-weight 1 --context-ratio 0.8 --criterion label_smoothed_cross_entropy_mla"
MODELS = {"cosformer": BOUNDARY, "softmax": ""}
MORE = {
    "relu": "--attn-type relu",
    "window": "--encoder-left-chunks 1",
    "mixed": "--attn-type leap --cross-attn-type softmax --encoder-chunk-size 2",
}
every_model = pytest.mark.parametrize(
    "flags",
    [*MODELS.values(), *(pytest.param(flags, marks=pytest.mark.slow) for flags in MORE.values())],
    ids=[*MODELS, *MORE],
)
POLICIES: dict[str, tuple[type[Session], Policy | OfflinePolicy, int]] = {
    "wait-1": (IncrementalSession, WaitKPolicy(1), 1),
    "wait-3-beam": (IncrementalSession, WaitKPolicy(3), BEAM),
    "whole-beam": (IncrementalSession, WholeSourcePolicy(), BEAM),
    "hold": (OfflineSession, HoldPolicy(2), 1),
    "agreement-beam": (OfflineSession, LocalAgreementPolicy(2), BEAM),
}
MONOTONIC = {
    "lookback": "--simul-type infinite_lookback --cross-attn-type relu",
    "chunkwise": "--simul-type chunkwise --mocha-chunk-size 4",
}
every_policy = pytest.mark.parametrize("policy", POLICIES)
Models = Callable[[str], tuple[EdgeTranslator, object]]


@pytest.fixture(scope="module")
def models(export, translator) -> Models:
    """``models(flags)``: an exported model, and the model in PyTorch."""

    def models(flags: str) -> tuple[EdgeTranslator, object]:
        folder, done = export(flags, f"--beam {BEAM}")
        assert done.code == 0, done.err
        return EdgeTranslator.load(folder), translator(flags)

    return models


def session(model, policy: str) -> Session:
    kind, rule, beam = POLICIES[policy]
    return kind(model, rule, SearchOptions(beam, max_len_b=8))


def emissions(begun: Session | LongSession, samples: np.ndarray, size: int) -> list[Emission]:
    """Translate samples in segments of ``size`` samples."""
    found = [e for start in range(0, len(samples), size) for e in begun.push(samples[start : start + size])]
    return found + begun.finish()


@every_model
@every_policy
def test_sessions_emit_the_same(models: Models, flags: str, policy: str) -> None:
    edge, model = models(flags)
    for seconds, size in ((2.26, 4_480), (0.7, 1_601), (0.03, 100), (0.01, 100)):
        samples = noise(seconds, 3)
        expected = emissions(session(model, policy), samples, size)
        assert emissions(session(edge, policy), samples, size) == expected
        assert expected or seconds < 0.1


@pytest.mark.parametrize(
    "flags", [MONOTONIC["lookback"], pytest.param(MONOTONIC["chunkwise"], marks=pytest.mark.slow)], ids=MONOTONIC
)
@pytest.mark.parametrize("beam", [1, BEAM])
def test_sessions_with_monotonic_attention_emit_the_same(models: Models, flags: str, beam: int) -> None:
    samples, found = noise(2.26, 3), []
    for translator in models(flags):
        begun = IncrementalSession(translator, MonotonicPolicy(), SearchOptions(beam, max_len_b=8))
        before = begun.push(samples[:9_000])
        snapshot = begun.snapshot()
        after = emissions(begun, samples[9_000:], 1_601)
        begun.restore(snapshot)
        assert emissions(begun, samples[9_000:], 1_601) == after
        found.append(before + after)
    assert found[0] == found[1] and any(emission.text for emission in found[0])


def test_the_audio_may_arrive_in_any_segments(models: Models) -> None:
    edge, _ = models(BOUNDARY)
    samples = noise(1.9, 4)
    found = [[(e.text, e.sentence_ended) for e in emissions(session(edge, "wait-1"), samples, 4_000)]]
    for size in (1, 160, 399, 1_920, 50_000):
        if size == 1:  # the first samples one by one
            begun = session(edge, "wait-1")
            parts = [e for sample in samples[:700] for e in begun.push([sample])]
            words = parts + emissions(begun, samples[700:], 2_000)
        else:
            words = emissions(session(edge, "wait-1"), samples, size)
        found.append([(e.text, e.sentence_ended) for e in words])
    texts = {" ".join(text for text, _ in words) for words in found}
    assert len(texts) == 1 and all(words[-1][1] for words in found)


@pytest.mark.parametrize("policy", ["wait-3-beam", "hold"])
def test_a_snapshot_is_exact(models: Models, policy: str) -> None:
    edge, _ = models("")
    samples, begun = noise(2.0, 5), session(edge, policy)
    begun.push(samples[:14_000])
    snapshot, size = begun.snapshot(), begun.nbytes
    assert size > 0
    after = emissions(begun, samples[14_000:], 3_000)
    other = session(edge, policy)
    for target in (begun, other):
        target.restore(snapshot)
        assert target.nbytes == size
        assert emissions(target, samples[14_000:], 3_000) == after


@pytest.mark.parametrize("detector", [None, EnergyDetector()], ids=["boundary", "energy"])
@pytest.mark.parametrize("policy", ["wait-1", "hold"])
def test_long_sessions_emit_the_same(models: Models, policy: str, detector) -> None:
    edge, model = models(BOUNDARY)
    segment = 1 if policy == "wait-1" else 12
    found = []
    for translator in (edge, model):
        begun = LongSession(session(translator, policy), detector and detector.fork(), longest=2.0, segment=segment)
        found.append(emissions(begun, STREAM, 2_000))
    assert found[0] == found[1]
    assert len({emission.stretch for emission in found[0] if emission.text}) >= (2 if detector else 0)


def test_the_boundary_output_is_that_of_the_model(models: Models) -> None:
    judged = []
    for translator in models(BOUNDARY):
        source = translator.begin_source()
        source.listen()
        source.discard()
        for start in range(0, len(STREAM), 5_000):
            source.push(STREAM[start : start + 5_000])
        source.push([], final=True)
        judged.append(np.stack([source.judge.ended, source.judge.speech]))
    assert judged[0].shape[1] == -(-source.frames // 4)
    np.testing.assert_allclose(judged[0], judged[1], atol=1e-4)


def test_memory_does_not_grow_with_the_stream(models: Models) -> None:
    begun = LongSession(session(models(BOUNDARY)[0], "wait-1"), EnergyDetector(), longest=2.0)
    sizes = []
    for seed in range(4):
        begun.push(voice(1.5, seed))
        sizes.append(begun.nbytes)
        begun.push(np.zeros(12_000, np.int16))
    assert len(sizes) == 4 and max(sizes) < 1.1 * sizes[0]


@pytest.mark.slow
def test_an_hour_of_audio_gives_the_same_words_in_flat_memory(models: Models) -> None:
    edge, model = (
        LongSession(session(translator, "wait-1"), EnergyDetector(), longest=5.0) for translator in models(BOUNDARY)
    )
    peaks = []
    for minute in range(60):
        samples = np.resize(np.roll(STREAM, -977 * minute), 60 * 16_000)
        assert edge.push(samples) == model.push(samples)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert edge.stretch > 1_000
    assert peaks[-1] - peaks[9] < 10_000, "KiB; both sessions together"


def test_a_policy_is_chosen_by_its_name(models: Models) -> None:
    edge, model = models(BOUNDARY)
    assert suitable(edge) == [name for name in suitable(model) if name != "align-att"]
    begun = [begin_long(translator, detector=EnergyDetector()) for translator in (edge, model)]
    found = [emissions(session, STREAM, 9_000) for session in begun]
    assert found[0] == found[1] and len(found[0]) > 3


@pytest.mark.parametrize(
    ("begin", "message"),
    [
        (lambda edge: OfflineSession(edge, AlignAttPolicy(2)), "an exported model has no attention weights"),
        (lambda edge: OfflineSession(edge, HoldPolicy(2), layer=1), "an exported model has no attention weights"),
        (lambda edge: IncrementalSession(edge, MonotonicPolicy()), "this model has no monotonic attention"),
        (lambda edge: IncrementalSession(edge, WaitKPolicy(1, 7)), "the pre-decision ratio of the policy is 7"),
        (lambda edge: edge.options(beam=4), "the beam is 4, but the model was exported for 3: lower it"),
        (lambda edge: edge.options(language="de") and session(edge, "wait-1").translator.forced("de"), "remove it"),
    ],
)
def test_what_does_not_suit_the_model_is_reported(models: Models, begin, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        begin(models("")[0])


def test_a_recording_beyond_the_buffers_is_reported(export) -> None:
    folder, done = export("", "--longest 1")
    assert done.code == 0, done.err
    edge = EdgeTranslator.load(folder)
    with pytest.raises(ValueError, match=r"the recording is longer than the 1\.\d+ s for which the model was exported"):
        edge.begin_source().push(noise(2.0))
    begun = IncrementalSession(edge, WaitKPolicy(1), SearchOptions(max_len_a=0, max_len_b=999))
    begun.hypotheses.memories.decoded = edge.config.most_tokens
    with pytest.raises(ValueError, match=r"the sentence is longer than the \d+ tokens"):
        begun.push(noise(0.9), final=True)


def test_it_runs_without_torch(models: Models, folder: Path) -> None:
    np.save(folder / "speech.npy", STREAM)
    code = f"""
import numpy as np
from mla_fairseq.edge.runtime.model import EdgeTranslator
from mla_fairseq.streaming.choice import begin_long
from mla_fairseq.streaming.detectors import EnergyDetector
session = begin_long(EdgeTranslator.load({str(folder)!r}), detector=EnergyDetector())
print(ascii([e.text for e in session.push(np.load({str(folder / "speech.npy")!r}), final=True)]))
"""
    done = run_blocked(code)
    assert done.returncode == 0, done.stderr
    expected = begin_long(models(BOUNDARY)[1], detector=EnergyDetector()).push(STREAM, final=True)
    assert done.stdout.strip() == ascii([emission.text for emission in expected]) != "[]"


@pytest.fixture
def folder(export, tmp_path: Path) -> Path:
    """A copy of an exported folder."""
    source, done = export(BOUNDARY, f"--beam {BEAM}")
    assert done.code == 0, done.err
    return Path(shutil.copytree(source, tmp_path / "model"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def configure(path: Path, **values: object) -> None:
    """Change values of config.json; ``None`` removes them."""
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "gone"}))


def record(folder: Path, name: str, data: bytes) -> None:
    """Replace a file, as another tool would have written it: with its right size and SHA-256."""
    import hashlib

    (folder / name).write_bytes(data)
    files = json.loads((folder / "config.json").read_text())["files"]
    files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    configure(folder / "config.json", files=files)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shutil.rmtree(f), "config.json is missing: give the folder that mla-export wrote"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing: give the folder that mla-export wrote"),
        (lambda f: cut(f / "config.json"), "config.json is not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json is not of an exported model"),
        (lambda f: configure(f / "config.json", format=9), "config.json has the format 9, but this version reads 1"),
        (lambda f: configure(f / "config.json", type="other"), "is a model of type 'other', but 'speech-to-text' is"),
        (lambda f: configure(f / "config.json", files={"../x": {}}), "cannot name a file"),
        (lambda f: configure(f / "config.json", files={"tokens.txt": 3}), "has no size and SHA-256 of tokens.txt"),
        (lambda f: configure(f / "config.json", chunk="gone"), r"chunk is not an int of at least 1 \(None\): copy"),
        (lambda f: configure(f / "config.json", eos="2"), r"eos is not an int of at least 0 \('2'\)"),
        (lambda f: configure(f / "config.json", policy={}), r"is not complete \('type'\): copy the folder again"),
        (lambda f: configure(f / "config.json", policy={"type": "other"}), "its policy 'other' is not supported"),
        (lambda f: configure(f / "config.json", sample_rate=8_000), "sample_rate is 8000, but only 16000 is"),
        (lambda f: cut(f / "encoder.onnx"), r"encoder.onnx has \d+ bytes, but \d+ were written: copy the folder"),
        (lambda f: change(f / "decoder.onnx"), r"decoder.onnx is not the file that was written \(its SHA-256 is"),
        (lambda f: (f / "reader.onnx").unlink(), "reader.onnx is missing: copy the folder again"),
        (lambda f: record(f, "reader.onnx", b"no graph"), r"reader.onnx cannot be read by onnxruntime \(.+\): export"),
        (lambda f: record(f, "tokens.txt", b"a 0\nb 2\n"), "tokens.txt, line 2, is not a symbol and the number 1"),
        (lambda f: record(f, "tokens.txt", b"a 0\nb 1\n"), r"has 2 tokens and \d+ scores: export the model again"),
    ],
)
def test_a_broken_folder_gives_one_error(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(ValueError, match=message) as caught:
        EdgeTranslator.load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_precision_that_the_folder_lacks_is_reported(folder: Path) -> None:
    EdgeTranslator.load(folder, "float32")
    with pytest.raises(ValueError, match=r"has no encoder\.int8\.onnx: name another precision, or export"):
        EdgeTranslator.load(folder, "int8")


def test_the_command_prints_words_with_times(folder: Path, tmp_path: Path, models: Models) -> None:
    speech = {"a": STREAM, "b": STREAM[30_000:]}
    for name, samples in speech.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000)
    paths = [tmp_path / f"{name}.wav" for name in ("a", "none", "b")]
    done = run("mla-edge", folder, paths, "--number", 1, "--detector", "energy")
    lines = []
    for path in paths:
        lines.append(f"{path}:")
        if path.exists():
            begun = begin_long(models(BOUNDARY)[1], number=1, detector=EnergyDetector())
            found = emissions(begun, speech[path.stem], 1_600)
            lines += [f"{e.milliseconds / 1000:8.2f}  {e.text}" for e in found if e.text]
    assert done.out.splitlines() == lines and len(lines) > 8
    first, missing, second = done.err.splitlines()
    assert missing == f"error: {paths[1]} is missing: correct the name" and done.code == 1
    for line, path, seconds in ((first, paths[0], 5.8), (second, paths[2], 3.9)):
        assert line.startswith(f"{path}: {seconds} s of audio, real-time factor ")
        assert line.endswith(" MiB")


def test_the_command_needs_one_source_of_speech(folder: Path) -> None:
    for flags, reason in (([], "no speech or text is given"), (["a.wav", "--microphone"], "both audio files and")):
        done = run("mla-edge", folder, flags)
        assert done.code == 1 and done.last_line.startswith(f"error: {reason}")


def test_the_command_translates_a_microphone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(InputStream=Interrupted, PortAudioError=OSError))
    done = run("mla-edge", folder, "--microphone")
    assert done.code == 0 and done.last_line.startswith("microphone: 0.1 s of audio, real-time factor ")
