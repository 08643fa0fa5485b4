"""``mla-translate`` and ``fairseq-interactive`` give for audio files what ``fairseq-generate`` gives for the set."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from mla_fairseq.cli.translate import longest_trained
from mla_fairseq.data import archive, manifest
from mla_fairseq.speech import load_audio
from mla_fairseq.speech.pauses import stretches
from tests.programs import Done, run
from tests.streaming.conftest import SECONDS, Save, noise

OFFLINE = "--encoder-chunk-size 0 --attn-type cosformer"
TASK = ["--task", "speech_to_text_mla", "--cpu", "--max-len-b", 12]
NAMES = [f"tst-COMMON{i}.wav" for i in range(len(SECONDS["tst-COMMON"]))]


@pytest.fixture(scope="module")
def wavs(data: Path) -> list[Path]:
    return [data / "data" / "tst-COMMON" / "wav" / name for name in NAMES]


@pytest.fixture(scope="module")
def generated(data: Path) -> Callable[..., list[str]]:
    """Return the translations of the set by ``fairseq-generate``, in the order of the manifest."""

    def generated(path: Path, *flags: object, config: str = "config_st.yaml") -> list[str]:
        options = ["--config-yaml", config, "--path", path, "--gen-subset", "tst-COMMON_st", "--num-workers", 0]
        return texts(run("fairseq-generate", data, TASK, options, *flags))

    return generated


def texts(done: Done) -> list[str]:
    """Return the detokenised hypotheses that a command of fairseq printed, by index."""
    assert done.code == 0, done.err
    rows = [line[2:].split("\t") for line in done.lines("D-")]
    return [text for _, text in sorted((int(index), text) for index, _, text in rows)]


def translate(path: Path, data: Path, files: list[Path], *flags: object) -> Done:
    return run("mla-translate", path, "--data", data, "--max-len-b", 12, "--max-seconds", 11, *flags, files)


@pytest.fixture(scope="module")
def utterance_cmvn(data: Path) -> str:
    """Add a configuration with utterance CMVN, and return its name."""
    config = yaml.safe_load((data / "config_st.yaml").read_text(encoding="utf-8"))
    config["feature_transforms"] = {"*": ["utterance_cmvn"]}
    (data / "config_utterance.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return "config_utterance.yaml"


@pytest.mark.parametrize(
    "flags", [OFFLINE, "--attn-type relu", pytest.param("--attn-type cosformer", marks=pytest.mark.slow)]
)
def test_files_are_translated_as_the_prepared_set(
    save: Save, data: Path, wavs: list[Path], generated: Callable[..., list[str]], flags: str
) -> None:
    path = save(flags)
    expected = generated(path)
    assert len(set(expected)) > 2 and all(expected)
    done = translate(path, data, wavs)
    assert done.code == 0, done.err
    # nothing else on standard output
    assert done.out == "".join(f"{wav}\t{text}\n" for wav, text in zip(wavs, expected, strict=True))
    if flags == OFFLINE:  # whatever the batches are, and in half precision
        assert translate(path, data, wavs, "--max-tokens", 1, "--fp16").out == done.out


@pytest.mark.slow
def test_flags_of_the_search_and_utterance_cmvn(
    save: Save, data: Path, wavs: list[Path], generated: Callable[..., list[str]], utterance_cmvn: str
) -> None:
    path, search = save("--attn-type cosformer"), ["--beam", 2, "--lenpen", 0.2, "--max-len-a", 0.01]
    expected = generated(path, *search, config=utterance_cmvn)
    assert expected != generated(path, *search)
    done = translate(path, data, wavs, *search, "--config-yaml", utterance_cmvn)
    assert [line.split("\t")[1] for line in done.out.splitlines()] == expected


def test_formats_rates_and_channels(save: Save, data: Path, tmp_path: Path) -> None:
    samples = noise(2.0, seed=3)
    both = np.stack([samples, samples], axis=1)
    soundfile.write(tmp_path / "mono.wav", samples, 16_000)
    soundfile.write(tmp_path / "stereo.flac", both, 16_000)
    soundfile.write(tmp_path / "fast.wav", both, 44_100)
    soundfile.write(tmp_path / "slow.ogg", samples, 8_000)
    names = ["mono.wav", "stereo.flac", "fast.wav", "slow.ogg"]
    done = translate(save(OFFLINE), data, [tmp_path / name for name in names])
    assert done.code == 0, done.err
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert [Path(name).name for name, _ in lines] == names and all(text for _, text in lines)
    assert lines[0][1] == lines[1][1]
    assert f"{tmp_path / 'slow.ogg'} has" not in done.err and "is 8000 Hz" in done.err


@pytest.fixture
def long(tmp_path: Path, wavs: list[Path]) -> tuple[Path, list[Path]]:
    """Return a recording of 8 s with long pauses, and its stretches as files."""
    gap = np.zeros(16_000, np.int16)
    talk = np.concatenate(
        [gap, *(part for i in (0, 2, 3) for part in (soundfile.read(wavs[i], dtype="int16")[0], gap))]
    )
    soundfile.write(tmp_path / "talk.wav", talk, 16_000)
    pieces = []
    for number, (start, stop) in enumerate(stretches(load_audio(tmp_path / "talk.wav"), 4.0)):
        pieces.append(tmp_path / f"{number}.wav")
        soundfile.write(pieces[-1], talk[start:stop], 16_000)
    return tmp_path / "talk.wav", pieces


def test_a_long_file_is_cut_at_pauses(save: Save, data: Path, long: tuple[Path, list[Path]]) -> None:
    (talk, pieces), path = long, save(OFFLINE)
    assert len(pieces) == 3
    alone = translate(path, data, pieces)
    expected = " ".join(line.split("\t")[1] for line in alone.out.splitlines())
    cut = translate(path, data, [talk], "--max-seconds", 4)
    assert cut.out == f"{talk}\t{expected}\n"
    assert cut.err == f"{talk}: 10.9 s of audio, cut at pauses into stretches: 3\n"
    assert translate(path, data, [talk], "--pause", 0.9).out == cut.out
    whole = translate(path, data, [talk])
    assert whole.out.startswith(f"{talk}\t") and not whole.err


def test_the_longest_training_recording_is_the_default_limit(save: Save, data: Path, tmp_path: Path) -> None:
    frames = [int(row["n_frames"]) for path in data.glob("train*.tsv") for _, row in manifest.rows(path)]
    assert max(frames) < 100 and longest_trained(data) == 1  # the shortest limit that can be given
    assert longest_trained(tmp_path) is None


def test_a_long_silence_has_no_translation(save: Save, data: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(3 * 16_000, np.int16), 16_000)
    done = translate(save(OFFLINE), data, [tmp_path / "silence.wav"], "--max-seconds", 2)
    assert (done.code, done.out) == (0, f"{tmp_path / 'silence.wav'}\t\n")
    assert "stretches: 0" in done.err


def test_each_broken_file_is_reported_and_the_others_are_translated(
    save: Save, data: Path, wavs: list[Path], tmp_path: Path
) -> None:
    broken = {
        "empty.wav": b"",
        "text.wav": b"no audio at all" * 100,
        "cut.flac": None,
        "nan.wav": np.full(8_000, np.nan),
        "short.wav": np.zeros(399),
        "none.wav": np.zeros(0),
        "tab\t.wav": np.zeros(8_000),
    }
    for name, content in broken.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content is not None:
            soundfile.write(tmp_path / name, content, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "cut.flac", noise(1.0), 16_000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:5_000])
    files = [wavs[0], *(tmp_path / name for name in broken), tmp_path, tmp_path / "missing.wav"]
    files += [tmp_path / ("x" * 300), Path("/dev/null"), wavs[1]]
    done = translate(save(OFFLINE), data, files)
    assert done.code == 1
    assert [line.split("\t")[0] for line in done.out.splitlines()] == [str(wavs[0]), str(wavs[1])]
    errors = [line for line in done.err.splitlines() if "error: " in line]
    assert len(errors) == len(files) - 2
    for name in [*broken, "missing.wav"]:
        assert any(repr(name)[1:-1] in error and ": " in error.partition("error: ")[2] for error in errors), name
    for message in (f"{tmp_path} is a folder", "x cannot be opened (File name too long)", "null is not a regular file"):
        assert any(message in error for error in errors), message
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beam", 0], "error: --beam is 0: give at least 1"),
        (["--lenpen", "nan"], "error: --lenpen is nan: give a finite number"),
        (["--max-seconds", "nan"], "error: --max-seconds is nan: give at least 1"),
        (["--max-seconds", 61], "error: --max-seconds is 61, but the model accepts 60 s: lower it"),
        (["--device", "cuda:99"], "error: --device is cuda:99, which torch cannot use"),
        (["--config-yaml", "none.yaml"], "none.yaml is missing"),
        (["--user-dir", "none"], "none, which does not exist: name the folder of a package"),
    ],
)
def test_a_wrong_flag_is_one_line(save: Save, data: Path, wavs: list[Path], flags: list, message: str) -> None:
    done = translate(save(OFFLINE), data, wavs[:1], *flags)
    assert done.code == 1 and not done.out
    assert message in done.last_line and "Traceback" not in done.err


def test_a_broken_checkpoint_is_one_line(data: Path, wavs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"none")
    for path in (tmp_path / "checkpoint.pt", tmp_path / "missing.pt"):
        done = translate(path, data, wavs[:1])
        assert done.code == 1 and path.name in done.last_line and "Traceback" not in done.err


def test_a_broken_training_set_is_one_line(save: Save, data: Path, wavs: list[Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    rows = (folder / "train_st.tsv").read_text(encoding="utf-8").split("\n")
    column = rows[0].split("\t").index("n_frames")
    cells = rows[2].split("\t")
    rows[2] = "\t".join([*cells[:column], "5.5", *cells[column + 1 :]])
    (folder / "train_st.tsv").write_text("\n".join(rows), encoding="utf-8")
    done = run("mla-translate", save(OFFLINE), "--data", folder, wavs[0])
    assert "train_st.tsv:3 has an n_frames that is not a whole number above 0 ('5.5')" in done.last_line
    assert done.code == 1 and "Traceback" not in done.err


def interactive(path: Path, data: Path, sources: list[object], folder: Path, *flags: object) -> Done:
    (folder / "sources").write_text("".join(f"{source}\n" for source in sources), encoding="utf-8")
    options = ["--config-yaml", "config_st.yaml", "--path", path, "--input", folder / "sources"]
    return run("fairseq-interactive", data, TASK, options, *flags)


@pytest.mark.parametrize(
    ("model", "flags"),
    [(OFFLINE, ["--beam", 5]), ("--attn-type relu", ["--beam", 1, "--simul-waitk-lagging", 2])],
    ids=["offline", "wait-k"],
)
def test_interactive_translates_audio_arrays_and_places(
    save: Save,
    data: Path,
    wavs: list[Path],
    tmp_path: Path,
    generated: Callable[..., list[str]],
    model: str,
    flags: list,
) -> None:
    path = save(model)
    expected = generated(path, *flags)
    assert len(set(expected)) > 2
    sources = [*wavs, *stored(data, tmp_path)]
    done = interactive(path, data, sources, tmp_path, *flags, "--buffer-size", 3, "--max-tokens", 400)
    assert texts(done) == expected * 2


def stored(data: Path, folder: Path) -> list[str]:
    """Return the set as places in the archive; the first one as a file of its own."""
    lines = (data / "tst-COMMON_st.tsv").read_text(encoding="utf-8").splitlines()
    column = lines[0].split("\t").index("audio")
    places = [f"{data}/{line.split(chr(9))[column]}" for line in lines[1:]]
    path, offset, length = manifest.SLICE.fullmatch(places[0]).groups()
    np.save(folder / "first.npy", archive.read(Path(path), int(offset), int(length)))
    return [str(folder / "first.npy"), *places[1:]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"error: --input .*/names is missing: name a file"),
        (Path.mkdir, "error: --input .*/names is a folder: name a file"),
        (lambda path: path.write_bytes(b"a.wav\n\xff.wav\n"), r"error: --input: .*/names is not UTF-8 \(line 2"),
        (Path.touch, "error: --input: .*/names is empty: write a line for each audio file"),
    ],
    ids=["missing", "folder", "Latin-1", "empty"],
)
def test_interactive_reports_an_input_that_it_cannot_read(
    save: Save, data: Path, tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "names")
    options = ["--config-yaml", "config_st.yaml", "--path", save(OFFLINE), "--input", tmp_path / "names"]
    done = run("fairseq-interactive", data, TASK, options)
    assert done.code == 1 and "Traceback" not in done.err
    assert re.match(message, done.last_line)


def test_interactive_ends_at_a_source_that_it_cannot_translate(
    save: Save, data: Path, wavs: list[Path], tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(61 * 16_000, np.int16), 16_000)
    done = interactive(save(OFFLINE), data, [wavs[1], tmp_path / "long.wav", wavs[0]], tmp_path)
    assert done.code == 1 and "Traceback" not in done.err
    assert done.last_line == (
        f"error: {tmp_path / 'long.wav'} has 6098 frames of at most 6000: use mla-translate, which cuts it"
    )
    assert len(done.lines("D-")) == 1  # what was translated before is printed
