"""MuST-C's layout: what is read, in which order, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mla_fairseq.data.mustc import MuSTC


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8", newline="")


def test_splits_begin_with_train(corpus: MuSTC) -> None:
    assert corpus.splits == ("train", "dev", "tst-COMMON")


@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("en-de", ("en", "de")),
        ("mb-fr", ("mb", "fr")),
        ("syn-en-de", ("en", "de")),
        ("en-pt-br", ("en", "pt-br")),
        ("v2-zh-hans-en", ("zh-hans", "en")),
    ],
)
def test_languages_come_from_the_files(make_pair: Callable[..., Path], name: str, languages: tuple[str, str]) -> None:
    assert MuSTC(make_pair(name, {"train": 1}, languages=languages)).languages == languages


def test_segments_are_sorted_by_time_not_by_letters(corpus: MuSTC) -> None:
    first, second = corpus.read("dev")[:3], corpus.read("dev")[3:]
    assert [segment.start / 16_000 for segment in first] == [0, 2.0, 10.25]
    assert [segment.id for segment in first + second] == [f"ted_dev_{talk}_{n}" for talk in (0, 1) for n in range(3)]
    for segment, offset in zip(first, ("0", "2.0", "10.25"), strict=True):
        assert segment.source.startswith(f"en ted_dev_0 {offset} ")
        assert segment.target.startswith(f"de ted_dev_0 {offset} ")


def test_a_segment_knows_its_samples_and_frames(corpus: MuSTC) -> None:
    first = corpus.read("dev")[0]
    assert (first.start, first.length, first.num_frames) == (0, 12_800, 78)
    assert first.speaker == "007"
    assert first.source.startswith("en ted_dev_0 0 ")


def test_texts_keep_their_spaces_but_no_breaks(corpus: MuSTC) -> None:
    text = corpus.root / "data/dev/txt/dev.de"
    replace_in(text, "de ted_dev_0 2.0 ", "Le\u00a0mot\u202f:\tdeux\u2028trois\x85quatre\r")
    second = corpus.read("dev")[1].target
    assert second.startswith("Le\u00a0mot\u202f: deux trois quatre ")
    assert not set(second) & set("\t\r\n\u2028\x85")


def test_windows_line_ends_change_nothing(corpus: MuSTC) -> None:
    before = corpus.read("dev")
    for path in (corpus.root / "data/dev/txt").iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert corpus.read("dev") == before


def test_a_rounded_end_is_cut_to_the_file(corpus: MuSTC) -> None:
    replace_in(corpus.root / "data/dev/txt/dev.yaml", "duration: 0.75, offset: 10.25", "duration: 1.78, offset: 10.25")
    assert corpus.read("dev")[2].length == 28_000


def remove(relative: str) -> Callable[[Path], None]:
    return lambda pair: (pair / relative).unlink()


def rewrite(relative: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda pair: replace_in(pair / relative, old, new)


def overwrite(relative: str, content: bytes) -> Callable[[Path], None]:
    return lambda pair: (pair / relative).write_bytes(content)


def rerecord(rate: int) -> Callable[[Path], None]:
    samples = np.zeros(64_000, np.int16)
    return lambda pair: soundfile.write(pair / "data/dev/wav/ted_dev_0.wav", samples, rate)


def cut_wav(pair: Path) -> None:
    wav = pair / "data/dev/wav/ted_dev_1.wav"
    wav.write_bytes(wav.read_bytes()[:20_000])


YAML, DE, WAV = "data/dev/txt/dev.yaml", "data/dev/txt/dev.de", "data/dev/wav/ted_dev_1.wav"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(remove(YAML), r"dev\.yaml is missing", id="no yaml"),
        pytest.param(remove(DE), r"dev\.de is missing", id="no text"),
        pytest.param(remove(WAV), r"ted_dev_1\.wav is missing", id="no wav"),
        pytest.param(rewrite(DE, "\n", " "), r"dev\.de has 5 lines.*6 segments", id="a line less"),
        pytest.param(rewrite(DE, "\n", "\n\n"), r"dev\.de has 7 lines.*6 segments", id="a line more"),
        pytest.param(overwrite("data/dev/txt/dev.en", b"caf\xe9\n"), r"dev\.en is not UTF-8.*iconv", id="latin-1"),
        pytest.param(overwrite(YAML, b""), r"dev\.yaml lists no segment", id="empty"),
        pytest.param(overwrite(YAML, b"- {wav: [}"), r"dev\.yaml is not valid YAML", id="bad yaml"),
        pytest.param(rewrite(YAML, "offset: 2.0, ", ""), r"entry 1 .*lacks wav, offset or duration", id="no offset"),
        pytest.param(rewrite(YAML, "offset: 2.0", "offset: soon"), r"is not a number .*'soon'", id="no number"),
        pytest.param(rewrite(YAML, "offset: 2.0", "offset: nan"), r"is not a number .*'nan'", id="nan"),
        pytest.param(rewrite(YAML, "offset: 2.0", "offset: -2.0"), r"offset is negative", id="negative offset"),
        pytest.param(rewrite(YAML, "duration: 0.5", "duration: 0"), r"duration is not positive", id="no duration"),
        pytest.param(rewrite(YAML, "offset: 2.0", "offset: 11.9"), r"ends at 12\.40 s.*\(12\.00 s\)", id="beyond"),
        pytest.param(rewrite(YAML, "offset: 2.0", "offset: [2]"), r"offset of entry 1 is not one line", id="a list"),
        pytest.param(rewrite(YAML, "007", r'"a\tb"'), r"speaker_id of entry 1 is not one line of text", id="tab"),
        pytest.param(rewrite(YAML, "007", r'"a\nb"'), r"speaker_id of entry 1 is not one line", id="line break"),
        pytest.param(cut_wav, r"ted_dev_1\.wav: ends after \d+ of \d+ bytes of samples: copy it again", id="cut wav"),
        pytest.param(
            rewrite(YAML, "10.25", "12.25"), r"after the end of ted_dev_0\.wav .*: copy the audio again", id="late"
        ),
        pytest.param(rerecord(500), r"ted_dev_0\.wav: 500 samples per second are no rate", id="rate"),
    ],
)
def test_faults_of_a_split_are_reported(corpus: MuSTC, damage: Callable[[Path], None], message: str) -> None:
    damage(corpus.root)
    with pytest.raises(ValueError, match=message):
        corpus.read("dev")


def test_an_unknown_split_is_reported_with_the_existing_ones(corpus: MuSTC) -> None:
    with pytest.raises(ValueError, match=r"tst-HE is not a split: .* train, dev, tst-COMMON"):
        corpus.read("tst-HE")


def test_a_folder_without_data_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="en-de has no corpus of layout mustc: arrange it as PAIR/data/SPLIT"):
        MuSTC(tmp_path / "en-de")


def test_a_folder_without_splits_is_reported(tmp_path: Path) -> None:
    (tmp_path / "en-de/data").mkdir(parents=True)
    with pytest.raises(ValueError, match="contains no split"):
        MuSTC(tmp_path / "en-de").read("train")


def test_texts_of_other_languages_are_reported(corpus: MuSTC) -> None:
    shutil.move(corpus.root / "data/train/txt/train.de", corpus.root / "data/train/txt/train.fr")
    with pytest.raises(ValueError, match=r"\(train\.en, train\.fr, train\.yaml\) match the folder name 'en-de'"):
        corpus.read("train")


@pytest.mark.parametrize("name", ["../../dev/wav/ted_dev_0.wav", "/etc/hostname", "[a, b]", "''"])
def test_a_listing_names_no_file_elsewhere(pair: Path, name: str) -> None:
    listing = pair / "data" / "train" / "txt" / "train.yaml"
    listing.write_text(listing.read_text().replace("ted_train_0.wav", name))
    with pytest.raises(ValueError, match=r"a wav in .*train\.yaml is not a path inside .*train/wav"):
        MuSTC(pair).read("train")


def test_a_listing_that_is_not_yaml_is_one_line(pair: Path) -> None:
    replace_in(pair / "data" / "train" / "txt" / "train.yaml", "offset: ", "offset: [")
    with pytest.raises(ValueError, match=r"train\.yaml is not valid YAML \(.*\): copy it again") as caught:
        MuSTC(pair).read("train")
    assert "\n" not in str(caught.value)


def test_control_characters_of_texts_become_spaces(pair: Path) -> None:
    """The csv module, which reads manifests, refuses a null byte."""
    replace_in(pair / "data" / "train" / "txt" / "train.de", "de ted_train_0 ", "de\0ted\x1b\x7ftrain_0\x01")
    assert any(segment.target.startswith("de ted train_0 ") for segment in MuSTC(pair).read("train"))
