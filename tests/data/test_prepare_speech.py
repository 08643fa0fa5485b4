"""The preparation of one speaker's recordings for the text-to-speech task."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from mla_fairseq.data import archive
from mla_fairseq.data.ljspeech import read_clips, split_clips
from mla_fairseq.data.prepare_speech import Options, prepare, read_durations
from mla_fairseq.data.spoken_text import SpokenText
from mla_fairseq.speech.mel import MelSpectrogram
from tests.data.voice import LETTERS, RATE, SECONDS, whistle, write_voice

OPTIONS = Options(dev=2, test=2)


@pytest.fixture
def voice(tmp_path: Path) -> Path:
    return write_voice(tmp_path / "voice")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def frames(folder: Path, row: dict[str, str]) -> np.ndarray:
    name, offset, length = row["audio"].split(":")
    return archive.read(folder / name, int(offset), int(length))


def test_manifests_contain_what_was_recorded(voice: Path, tmp_path: Path) -> None:
    out = prepare(voice, tmp_path / "out", OPTIONS).parent
    splits = {split: rows(out / f"{split}.tsv") for split in ("train", "dev", "test")}
    assert [len(splits[name]) for name in splits] == [20, 2, 2]
    texts = dict(line.split("|")[::2] for line in (voice / "metadata.csv").read_text().splitlines())
    assert {row["id"] for members in splits.values() for row in members} == set(texts)
    mel = MelSpectrogram()
    for row in splits["train"]:
        found = frames(out, row)
        assert row["tgt_text"] == " ".join(texts[row["id"]]) and row["src_text"] == texts[row["id"]]
        assert len(found) == int(row["n_frames"])
        spoken = len(texts[row["id"]]) * SECONDS * mel.sample_rate / mel.hop_length
        assert spoken - 1 < len(found) < spoken + 12  # half a second of silence, 43 frames, is gone
    assert sorted((out / "dict.txt").read_text().split()[::2]) == list(LETTERS)


def test_normalised_training_frames_have_mean_0_and_deviation_1(voice: Path, tmp_path: Path) -> None:
    out = prepare(voice, tmp_path / "out", OPTIONS).parent
    everything = np.concatenate([frames(out, row) for row in rows(out / "train.tsv")])
    with np.load(out / "gcmvn.npz") as stats:
        scaled = (everything - stats["mean"]) / stats["std"]
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-4)


def test_a_second_run_changes_nothing_and_other_settings_do(voice: Path, tmp_path: Path) -> None:
    out = prepare(voice, tmp_path / "out", OPTIONS).parent
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    stamp = (out / "mel80.zip").stat().st_mtime_ns
    prepare(voice, out, OPTIONS)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert (out / "mel80.zip").stat().st_mtime_ns == stamp
    prepare(voice, out, dataclasses.replace(OPTIONS, trim=0.0))
    longer = rows(out / "train.tsv")
    assert all(len(frames(out, row)) == int(row["n_frames"]) > 50 for row in longer)
    soundfile.write(voice / "wavs" / "w05.wav", whistle("abcdefabcdef"), RATE)
    prepare(voice, out, dataclasses.replace(OPTIONS, trim=0.0))
    sizes = {row["id"]: int(row["n_frames"]) for name in ("train", "dev", "test") for row in rows(out / f"{name}.tsv")}
    assert sizes["w05"] == max(sizes.values())


def test_the_configuration_is_relative_and_converts_texts_as_in_training(voice: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(prepare(voice, tmp_path / "out", OPTIONS).read_text())
    assert config["features"]["sample_rate"] == 22050 and config["features"]["hop_length"] == 256
    assert str(tmp_path) not in yaml.safe_dump(config)
    text = SpokenText.from_config(config)
    assert text.symbols(["Fed, bad"]) == [["f", "e", "d", ",", "|", "b", "a", "d"]]
    with pytest.raises(ValueError, match="prepare the data with mla-prepare-tts"):
        SpokenText.from_config({})


def test_one_speaker_of_a_corpus_in_mustcs_layout(tmp_path: Path) -> None:
    pair = tmp_path / "en-de"
    for split, count in (("train", 6), ("dev", 2), ("tst-COMMON", 2)):
        (pair / "data" / split / "wav").mkdir(parents=True)
        txt = pair / "data" / split / "txt"
        txt.mkdir()
        entries, words = [], [LETTERS[i : i + 3] for i in range(count)] if count < 4 else ["abc", "fed"] * 3
        for i, word in enumerate(words):
            samples = whistle(word)
            soundfile.write(pair / "data" / split / "wav" / f"{split}{i}.wav", samples, RATE)
            entry = {"wav": f"{split}{i}.wav", "offset": 0, "duration": len(samples) / RATE}
            entries.append(entry | {"speaker_id": "ann" if i % 2 == 0 else "bob"})
        (txt / f"{split}.yaml").write_text(yaml.safe_dump(entries))
        for language in ("en", "de"):
            (txt / f"{split}.{language}").write_text("".join(f"{word}\n" for word in words))
    with pytest.raises(ValueError, match=r"several speakers \(.*ann 0\.00 h.*: choose one with --speaker"):
        read_clips(pair)
    with pytest.raises(ValueError, match="no speaker 'eve'"):
        read_clips(pair, "eve")
    with pytest.raises(ValueError, match=r"already has splits \(.*: remove --dev and --test"):
        prepare(pair, tmp_path / "out", dataclasses.replace(OPTIONS, speaker="ann"))
    out = prepare(pair, tmp_path / "out", dataclasses.replace(OPTIONS, speaker="ann", dev=None, test=None)).parent
    assert [row["tgt_text"] for row in rows(out / "train.tsv")] == ["a b c"] * 3
    assert len(rows(out / "tst-COMMON.tsv")) == 1


def test_durations_are_written_or_refused(voice: Path, tmp_path: Path) -> None:
    whole = dataclasses.replace(OPTIONS, trim=0.0)
    out = prepare(voice, tmp_path / "out", whole).parent
    made = [row for name in ("train", "dev", "test") for row in rows(out / f"{name}.tsv")]
    durations = {}
    for row in made:
        symbols, total = len(row["tgt_text"].split()), int(row["n_frames"])
        durations[row["id"]] = [total // symbols] * (symbols - 1) + [total - total // symbols * (symbols - 1)]
    listing = tmp_path / "durations"
    listing.write_text("".join(f"{name}|{' '.join(map(str, values))}\n" for name, values in durations.items()))
    assert read_durations(listing) == durations
    prepare(voice, out, dataclasses.replace(whole, durations=durations))
    row = rows(out / "train.tsv")[0]
    assert row["duration"] == " ".join(map(str, durations[row["id"]]))
    first = made[0]["id"]
    for values, message in (
        (None, f"no line for {first}"),
        ([1], f"has 1 numbers for the . symbols of {first}"),
        ([99, *durations[first][1:]], f"of {first} do not add up to its"),
    ):
        wrong = {name: durations[name] for name in durations if name != first} | ({first: values} if values else {})
        with pytest.raises(ValueError, match=message):
            prepare(voice, out, dataclasses.replace(whole, durations=wrong))
    with pytest.raises(ValueError, match="add --trim 0"):
        prepare(voice, out, dataclasses.replace(OPTIONS, durations=durations))
    listing.write_text("w00|1 x\n")
    with pytest.raises(ValueError, match=r":1 is not NAME\|3 12 5 \('w00\|1 x'\)"):
        read_durations(listing)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda voice: (voice / "metadata.csv").unlink(), "neither metadata.csv"),
        (lambda voice: (voice / "metadata.csv").write_text(""), "lists no recording"),
        (
            lambda voice: (voice / "metadata.csv").write_text("w00\n"),
            r":1 is not NAME\|text\|normalised text \('w00'\)",
        ),
        (lambda voice: (voice / "metadata.csv").write_text("w00|a|a\nw00|a|a\n"), "lists w00 more than once"),
        (lambda voice: (voice / "metadata.csv").write_text("../wavs/w00|a|a\n"), "name in .*csv:1 cannot name a file"),
        (lambda voice: (voice / "wavs" / "w03.wav").unlink(), r"w03\.wav is missing"),
        (lambda voice: (voice / "wavs" / "w03.wav").write_bytes(b"RIFF"), "cannot be read as audio"),
        (
            lambda voice: (voice / "wavs" / "w03.wav").write_bytes((voice / "wavs" / "w03.wav").read_bytes()[:-100]),
            r"w03\.wav: ends after \d+ of \d+ bytes of samples: copy it again",
        ),
        (lambda voice: soundfile.write(voice / "wavs" / "w03.wav", np.zeros((9, 2)), RATE), "2 channels"),
        (lambda voice: soundfile.write(voice / "wavs" / "w03.wav", np.zeros(0), RATE), "is empty"),
        (lambda voice: soundfile.write(voice / "wavs" / "w03.wav", np.zeros(RATE), RATE), "contains only silence"),
        (
            lambda voice: soundfile.write(voice / "wavs" / "w03.wav", np.full(RATE, np.inf), RATE, subtype="FLOAT"),
            r"w03\.wav is not finite at 0\.00 s: repair the recording",
        ),
    ],
)
def test_faults_of_the_corpus_are_reported(voice: Path, tmp_path: Path, damage, message: str) -> None:
    damage(voice)
    with pytest.raises(ValueError, match=message):
        prepare(voice, tmp_path / "out", OPTIONS)


def test_a_negative_trim_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--trim is not 0 decibels or more \(-5\)"):
        Options(trim=-5)


def test_another_encoding_is_reported_with_the_file(voice: Path, tmp_path: Path) -> None:
    listing = voice / "metadata.csv"
    text = listing.read_text()
    listing.write_bytes(b"\xef\xbb\xbf" + text.encode())  # the byte order mark of some editors
    prepare(voice, tmp_path / "data", Options(dev=2, test=2))
    listing.write_bytes(text.encode() + b"w00|caf\xe9\n")
    with pytest.raises(ValueError, match=r"metadata\.csv is not UTF-8"):
        prepare(voice, tmp_path / "other", Options(dev=2, test=2))


@pytest.mark.parametrize(("line", "message"), [("w00|3 \u00b2 5", "is not NAME"), ("w01|3", "repeats w01")])
def test_a_broken_line_of_durations_is_reported(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "durations").write_text(f"w01|3 2\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_durations(tmp_path / "durations")


def test_a_text_without_symbols_is_reported(voice: Path, tmp_path: Path) -> None:
    listing = voice / "metadata.csv"
    listing.write_text(listing.read_text() + "w00b|...|—\n")
    soundfile.write(voice / "wavs" / "w00b.wav", whistle("abc"), RATE)
    with pytest.raises(ValueError, match=r"the text of w00b has no symbol \('—'\)"):
        prepare(voice, tmp_path / "out", OPTIONS)


@pytest.mark.parametrize(("dev", "test"), [(0, 2), (12, 12), (2, 99)])
def test_an_empty_set_is_refused(voice: Path, dev: int, test: int) -> None:
    with pytest.raises(ValueError, match="empty set"):
        split_clips(read_clips(voice)["all"], dev, test, 1)


def test_symbols_may_be_phonemes(voice: Path, tmp_path: Path) -> None:
    pytest.importorskip("phonemizer", reason="phonemes need the extra tts")
    out = prepare(voice, tmp_path / "out", dataclasses.replace(OPTIONS, text=SpokenText("phonemes"))).parent
    assert set((out / "dict.txt").read_text().split()[::2]) - set(LETTERS)
