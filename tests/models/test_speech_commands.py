"""``fairseq-train`` trains text to speech with every criterion, and ``mla-synthesize`` speaks with the model."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from mla_fairseq.cli.synthesize import main
from mla_fairseq.data.prepare_speech import Options, prepare
from mla_fairseq.synthesis.speaker import Speaker
from mla_fairseq.synthesis.vocoder import hifi_gan
from tests.data.voice import LETTERS, write_voice
from tests.programs import run

ROOT = Path(__file__).resolve().parents[2]
SIZES = (
    "--encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 "
    "--encoder-transformer-layers 2 --decoder-transformer-layers 2 --encoder-attention-heads 2 "
    "--decoder-attention-heads 2 --prenet-dim 8 --postnet-conv-dim 8 --n-frames-per-step 4"
)
TRAINING = (
    "--task text_to_speech_mla --arch tts_transformer_mla --train-subset train --valid-subset dev "
    "--use-guided-attention-loss --bce-pos-weight 5 --optimizer adam --lr 0.01 --batch-size 8 --num-workers 0 --cpu "
    "--no-progress-bar --seed 1"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    return prepare(write_voice(folder / "voice"), folder / "data", Options(dev=2, test=3)).parent


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a few updates with cosFormer everywhere and a length predictor."""
    folder = tmp_path_factory.mktemp("model")
    flags = "--criterion tacotron2_mla --attn-type cosformer --length-predictor --max-update 8"
    done = run("fairseq-train", data, shlex.split(f"{TRAINING} {SIZES} {flags}"), "--save-dir", folder)
    assert done.code == 0, done.err
    assert '"dev_length_error"' in done.out or "length_error" in done.out
    return folder / "checkpoint_last.pt"


@pytest.mark.parametrize("task", ["text_to_speech", "text_to_speech_mla"])
def test_fairseqs_criterion_trains_every_mix(data: Path, tmp_path: Path, task: str) -> None:
    flags = "--criterion tacotron2 --attn-type relu --decoder-attn-type softmax --ctc-weight 0.1 --max-update 2"
    training = TRAINING.replace("text_to_speech_mla", task, 1)
    if task == "text_to_speech":  # reads the archive relative to the folder in which it was started
        text = (data / "config.yaml").read_text().replace("audio_root: ''", f"audio_root: {data}")
        (data / "stock.yaml").write_text(text.replace("gcmvn.npz", str(data / "gcmvn.npz")))
        flags += " --config-yaml stock.yaml --required-batch-size-multiple 1"
    done = run("fairseq-train", data, shlex.split(f"{training} {SIZES} {flags}"), "--save-dir", tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "checkpoint_last.pt").is_file()


def synthesize(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def test_texts_become_wav_files_and_pictures(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = [trained, "--data", data, "--output", tmp_path, "--text", "abc def", "fed", "--batch-size", "1"]
    synthesize(*command)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"000{i}.{suffix}" for i in (1, 2) for suffix in ("png", "svg", "wav")
    ]
    samples, rate = soundfile.read(tmp_path / "0001.wav")
    assert rate == 22050 and len(samples) > 0
    assert "a real-time factor of" in capsys.readouterr().out
    before = (tmp_path / "0001.wav").read_bytes()
    synthesize(*command)
    assert (tmp_path / "0001.wav").read_bytes() == before


def test_a_package_with_a_mechanism_is_imported(
    data: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    package = tmp_path / "my_synthesis_attention"
    package.mkdir()
    (package / "__init__.py").write_text("from mla_fairseq import plugin\nprint('my package is imported')\n")
    output = ("--output", tmp_path / "out", "--no-pictures")
    synthesize(trained, "--data", data, *output, "--text", "abc", "--user-dir", package)
    assert "my package is imported" in capsys.readouterr().out


@pytest.mark.parametrize("forced", [False, True])
def test_a_set_is_scored(data: Path, trained: Path, tmp_path: Path, forced: bool) -> None:
    flags = ["--teacher-forcing"] if forced else []
    synthesize(trained, "--data", data, "--output", tmp_path, "--gen-subset", "test", "--no-pictures", *flags)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["utterances"] == len(list(tmp_path.glob("*.wav"))) == 3
    assert scores["mcd"] > 0
    given = {"duration_error", "duration_ratio", "ended", "real_time_factor"}
    assert given.isdisjoint(scores) if forced else given <= scores.keys(), "what is given is not measured"


def test_a_run_that_fails_leaves_no_scores_of_another(data: Path, trained: Path, tmp_path: Path) -> None:
    spoken = tmp_path / "spoken"
    flags = ("--data", data, "--output", spoken, "--gen-subset", "test", "--no-pictures")
    synthesize(trained, *flags)
    state = torch.load(trained, weights_only=True)
    state["model"]["decoder.feat_proj.bias"].fill_(3e38)
    torch.save(state, tmp_path / "diverged.pt")
    with pytest.raises(SystemExit, match="not finite, because the training of this model diverged"):
        synthesize(tmp_path / "diverged.pt", *flags)
    assert not (spoken / "scores.json").exists()


def test_no_utterance_of_a_set_is_left_out_for_its_length(data: Path, trained: Path) -> None:
    speaker = Speaker(trained, data, overrides={"max_target_positions": 8, "max_source_positions": 2})
    assert len(list(speaker.synthesize_set("test", 20000))) == 3


def test_symbols_of_another_folder_are_refused(data: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "other")
    lines = (data / "dict.txt").read_text().splitlines()
    (tmp_path / "other" / "dict.txt").write_text("".join(f"{line}\n" for line in reversed(lines)))
    with pytest.raises(ValueError, match=r"trained with other symbols than those of .*other \(symbol"):
        Speaker(trained, tmp_path / "other")


def test_a_model_of_text_to_speech_does_not_translate(data: Path, trained: Path, tmp_path: Path) -> None:
    command = ["--gen-subset", "test", "--path", trained, "--cpu", "--user-dir", ROOT / "mla_fairseq"]
    done = run("fairseq-generate", data, "--task", "speech_to_text_mla", command)
    assert done.code == 1
    assert "the architecture is tts_transformer_mla, which is not of --task speech_to_text_mla" in done.last_line


def test_unknown_symbols_are_reported(data: Path, trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    speaker = Speaker(trained, data)
    speaker.synthesize(["abcz"], need_attn=False)
    assert "symbols that the training set does not contain: z" in caplog.text
    with pytest.raises(ValueError, match=r"knows no symbol of the text \('xyz'\)"):
        speaker.synthesize(["abc", "xyz"])


@pytest.mark.parametrize("name", ["../x", "absolute", "a/b"])
def test_an_id_names_no_file_elsewhere(data: Path, trained: Path, tmp_path: Path, name: str) -> None:
    """The name is that of the last row, and nothing is written for the others either."""
    name = str(tmp_path / "x") if name == "absolute" else name
    folder, output = shutil.copytree(data, tmp_path / "other"), tmp_path / "out" / "spoken"
    header, *rows = (folder / "test.tsv").read_text().splitlines()
    rows[-1] = "\t".join([name, *rows[-1].split("\t")[1:]])
    (folder / "test.tsv").write_text("\n".join([header, *rows]) + "\n")
    with pytest.raises(SystemExit, match=rf"^error: an id in .*test\.tsv cannot name a file \('{name}'\): "):
        synthesize(trained, "--data", folder, "--output", output, "--gen-subset", "test", "--no-pictures")
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".wav", ".part")] == []


@pytest.mark.parametrize("knows", ["english", "train"])
def test_a_set_is_transcribed_by_an_independent_asr_model(
    data: Path,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    knows: str,
) -> None:
    flags = ["--gen-subset", "test", "--no-pictures", "--recogniser", knows]
    synthesize(trained, "--data", data, "--output", tmp_path, *flags)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert min(scores["word_error_rate"], scores["recorded_word_error_rate"]) > 20, "tones are no words"
    header, *rows = (tmp_path / "heard.tsv").read_text().splitlines()
    assert header.split("\t") == ["id", "text", "heard", "heard_of_the_recording"] and len(rows) == 3
    assert "word error rate of the ASR model" in capsys.readouterr().out


def test_synthesis_works_with_every_length_rule(data: Path, trained: Path) -> None:
    for rule in ("ratio", "predicted", "fixed"):
        speaker = Speaker(trained, data, overrides={"target_length": rule, "target_length_fixed": 20})
        assert len(speaker.synthesize(["abc"], need_attn=False)[0]["waveform"]) > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", " "], "no sentence in --text: give at least one"),
        (["--text", "—"], r"a text has no symbol \('—'\)"),
        (["--text", "a", "--teacher-forcing"], "--teacher-forcing needs recorded speech"),
        (["--text", "a", "--recogniser", "train"], "--recogniser compares with recorded speech"),
        (["--text", "a", "--vocoder-config", "x"], "needs both --vocoder-checkpoint and --vocoder-config"),
        (["--text", "a", "--model-overrides", "{"], "give a Python dictionary"),
        (
            ["--text", "a", "--model-overrides", "{'nope': 1}"],
            "names 'nope', which is not an option of tts",
        ),
        (["--text", "a", "--model-overrides", "{'target_lenght': 'fixed'}"], "did you mean 'target_length'"),
        (
            ["--text", "a", "--model-overrides", "{'attn_type': 'softplus'}"],
            r"unknown attention 'softplus': choose one of .*; .* import that package first",
        ),
        (
            ["--text", "a", "--model-overrides", "{'encoder_attn_type': 'decay'}"],
            "it needs a simultaneous model with a chunked encoder",
        ),
        (["--text", "a", "--user-dir", "/nowhere"], "/nowhere"),
        *[
            (["--text", "a", "--max-length-ratio", value], f"--max-length-ratio is {value}: give a number above 0")
            for value in ("-1", "0", "nan", "inf")
        ],
        (["--gen-subset", "tset"], r"tset\.tsv is missing"),
        (["--gen-subset", "test", "--max-tokens", "5"], r"--max-tokens is 5, but an utterance of test has \d+ frames"),
        (["--text", "a", "--batch-size", "0"], "--batch-size is 0: give at least 1"),
        (["--text", "a", "--speaker", "eve"], "--speaker is eve, but the data name no speakers"),
        (["--text", "a", "--device", "cuda:99"], "--device is cuda:99, which torch cannot use"),
    ],
)
def test_wrong_input_ends_with_one_line(
    data: Path, trained: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match=message) as ending:
        synthesize(trained, "--data", data, "--output", tmp_path, *arguments)
    assert "\n" not in str(ending.value)


def write_hifi_gan(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Write the files of a small generator; return its settings and its weights."""
    from fairseq.models.text_to_speech.hifigan import Generator

    settings = {
        "upsample_rates": [8, 8, 4], "upsample_kernel_sizes": [16, 16, 8], "upsample_initial_channel": 16,
        "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]], "model_in_dim": 80,
    }  # fmt: skip
    weights = Generator(settings).state_dict()
    (folder / "config.json").write_text(json.dumps(settings))
    torch.save({"generator": weights}, folder / "g.pt")
    return settings, weights


def test_a_users_hifi_gan_is_used(tmp_path: Path) -> None:
    settings, _ = write_hifi_gan(tmp_path)
    files = (tmp_path / "g.pt", tmp_path / "config.json")
    features = {"sample_rate": 22050, "hop_length": 256, "n_mels": 80, "f_min": 20.0}
    assert hifi_gan(*files, features)(torch.randn(7, 80)).shape == (7 * 256,)
    with pytest.raises(ValueError, match="spectrograms with hop_length 256, but the data have 512"):
        hifi_gan(*files, features | {"hop_length": 512})
    (tmp_path / "config.json").write_text(json.dumps(settings | {"sampling_rate": 22050, "fmin": 0, "fmax": None}))
    with pytest.raises(ValueError, match=r"spectrograms with f_min 0, but the data have 20\.0"):
        hifi_gan(*files, features)


def test_files_that_are_no_hifi_gan_are_reported(tmp_path: Path) -> None:
    good, weights = write_hifi_gan(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    nan = {name: torch.full_like(tensor, torch.nan) for name, tensor in weights.items()}
    for content in ({"generator": nan}, {"generator": [1]}, {}, [1], {"generator": {**weights, "x": torch.zeros(1)}}):
        torch.save(content, tmp_path / "bad.pt")
        with pytest.raises(ValueError, match=r"bad\.pt and .* are not a HiFi-GAN generator \(.+\): give files"):
            hifi_gan(tmp_path / "bad.pt", tmp_path / "config.json")
    changes = {"upsample_initial_channel": 10**9, "upsample_rates": [], "resblock_dilation_sizes": [[1, 3, "x"]]}
    for settings in ([1], *({**good, name: value} for name, value in changes.items())):
        (tmp_path / "bad.json").write_text(json.dumps(settings))
        with pytest.raises(ValueError, match=r"bad\.json are not a HiFi-GAN generator \(.+\): give files"):
            hifi_gan(tmp_path / "g.pt", tmp_path / "bad.json")
    for files in (("pipe", "config.json"), ("g.pt", "pipe"), ("g.pt", "none"), ("config.json", "config.json")):
        with pytest.raises(ValueError, match=r"are not a HiFi-GAN generator \(.+\): give files"):
            hifi_gan(*(tmp_path / name for name in files))


def test_the_dictionary_has_the_letters_of_the_voice(data: Path) -> None:
    assert sorted((data / "dict.txt").read_text().split()[::2]) == list(LETTERS)


def test_only_griffin_lim_needs_librosa() -> None:
    """The package registers its models without it; Griffin-Lim names what is missing."""
    script = (
        "import sys; sys.modules['librosa'] = None\n"
        "import mla_fairseq\n"
        "from mla_fairseq.synthesis.vocoder import griffin_lim\n"
        "griffin_lim({})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert 'Griffin-Lim needs librosa: install the extra tts: pip install -c constraints.txt ".[tts]"' in done.stderr


@pytest.mark.parametrize("flag", ["--store-ema", "--vocoder hifigan", "--spec-bwd-max-iter 3"])
def test_flags_without_effect_are_refused(data: Path, tmp_path: Path, flag: str) -> None:
    done = run(
        "fairseq-train", data, shlex.split(f"{TRAINING} {SIZES} --criterion tacotron2 {flag}"), "--save-dir", tmp_path
    )
    assert done.code == 1
    assert done.last_line.startswith(f"error: {flag.split()[0]} is not supported in text to speech")


@pytest.mark.parametrize("command", ["fairseq-generate", "fairseq-interactive"])
def test_commands_for_text_are_refused(data: Path, trained: Path, command: str) -> None:
    done = run(command, data, "--task", "text_to_speech_mla", "--path", trained, "--cpu")
    assert done.code == 1
    assert (
        done.last_line == "error: --task text_to_speech_mla is not supported in a command for text: use mla-synthesize"
    )
