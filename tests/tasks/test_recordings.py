"""Features that no manifest lists: where they come from, and one clear error for each that cannot be used."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mla_fairseq.data import archive
from mla_fairseq.speech import filter_banks
from mla_fairseq.tasks.recordings import read_features

FRAMES = np.arange(240, dtype=np.float32).reshape(3, 80)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an archive of features, and files that cannot be used."""
    with archive.Writer(tmp_path / "features.zip") as writer:
        writer.add("one.npy", FRAMES)
    np.save(tmp_path / "one.npy", FRAMES)
    np.save(tmp_path / "bins.npy", FRAMES[:, :40])
    np.save(tmp_path / "flat.npy", FRAMES[0])
    np.save(tmp_path / "empty.npy", FRAMES[:0])
    np.save(tmp_path / "nan.npy", FRAMES * np.nan)
    np.save(tmp_path / "words.npy", FRAMES.astype(str))
    np.save(tmp_path / "pickled.npy", np.array([[print]], dtype=object))
    (tmp_path / "text.npy").write_text("text", encoding="utf-8")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "one.npy").read_bytes()[:200])
    with (tmp_path / "huge.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**14, 80)}
        np.lib.format.write_array_header_1_0(file, header)
    soundfile.write(tmp_path / "short.wav", np.zeros(399), 16_000)
    return tmp_path


def test_the_start_of_an_archive_is_no_array(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"features\.zip:0:10 has no features"):
        read_features(f"{folder}/features.zip:0:10", 80)


def test_an_array_file_and_a_place_in_an_archive(folder: Path) -> None:
    offset, length = archive.members(folder / "features.zip")["one.npy"]
    for source in ("one.npy", f"features.zip:{offset}:{length}"):
        assert np.array_equal(read_features(f"{folder}/{source}", 80), FRAMES)


def test_audio_gives_filter_banks(folder: Path) -> None:
    samples = np.random.default_rng(0).integers(-9_000, 9_000, 8_000).astype(np.int16)
    soundfile.write(folder / "one.wav", samples, 16_000)
    assert np.array_equal(read_features(str(folder / "one.wav"), 80), filter_banks(samples))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("bins.npy", r"bins\.npy: the features have shape \(3, 40\), but \(frames, 80\) is needed: use a source that"),
        ("flat.npy", r"flat\.npy: the features have shape \(80,\)"),
        ("empty.npy", r"empty\.npy: there are no frames"),
        ("nan.npy", r"nan\.npy: frame 0 of the features is not finite"),
        ("words.npy", r"words\.npy: the features are not float"),
        ("pickled.npy", r"pickled\.npy has no features \(.*allow_pickle=False.*\): correct it"),
        ("text.npy", r"text\.npy has no features"),
        ("cut.npy", r"cut\.npy has no features"),
        ("missing.npy", r"missing\.npy is missing: correct the name"),
        ("features.zip:7:10", r"features\.zip:7:10 has no features"),
        ("features.zip:99999:10", r"features\.zip:99999:10 has no features"),
        (
            "features.zip:7:999999999999999999",
            r"features\.zip:7:9+ has no features \(.*features\.zip has \d+ bytes, but",
        ),
        ("huge.npy", r"huge\.npy has no features \(.* has no array"),
        ("missing.zip:1:2", r"missing\.zip is missing: correct the name"),
        ("short.wav", r"short\.wav: audio of 399 samples is too short: leave it out"),
        ("missing.wav", r"missing\.wav is missing: correct the name"),
        ("features.zip", r"features\.zip: cannot be read as audio"),
    ],
)
def test_a_source_that_cannot_be_used_is_named(folder: Path, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_features(f"{folder}/{source}", 80)


def test_an_empty_line_is_reported() -> None:
    with pytest.raises(ValueError, match="an empty line names no audio file: remove it"):
        read_features("", 80)
