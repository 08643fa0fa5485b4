"""The archive: arrays are read in place, and an incomplete archive is always detected."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mla_fairseq.data import archive

NAMES = ["train/a_0.npy", "train/ü_1.npy", "dev/b_0.npy"]


def array(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3 + seed, 80)).astype(np.float32)


def fill(path: Path, names: list[str] = NAMES) -> bytes:
    """Add the arrays of these names to the archive; return its bytes."""
    with archive.Writer(path) as writer:
        for seed, name in enumerate(NAMES):
            if name in names:
                writer.add(name, array(seed))
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return fill(tmp_path_factory.mktemp("whole") / "features.zip")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "features.zip"


def test_arrays_are_read_at_their_places(path: Path) -> None:
    fill(path)
    places = archive.members(path)
    assert list(places) == NAMES
    for seed, place in enumerate(places.values()):
        assert np.array_equal(archive.read(path, *place), array(seed))


def test_fairseq_reads_it(path: Path) -> None:
    audio_utils = pytest.importorskip("fairseq.data.audio.audio_utils")
    fill(path)
    for seed, (offset, length) in enumerate(archive.members(path).values()):
        features = audio_utils.get_features_or_waveform(f"{path}:{offset}:{length}")
        assert np.array_equal(features, array(seed))


def test_other_tools_read_it(path: Path) -> None:
    fill(path)
    with zipfile.ZipFile(path) as other:
        assert other.testzip() is None
        assert other.namelist() == NAMES
        assert np.array_equal(np.load(io.BytesIO(other.read(NAMES[1]))), array(1))


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_an_error_leaves_the_archive_as_it_was(path: Path) -> None:
    def fail() -> None:
        with archive.Writer(path) as writer:
            writer.add(NAMES[2], array(2))
            raise RuntimeError("disk on fire")

    for names in ([], NAMES[:2]):
        before = fill(path, names) if names else None
        with pytest.raises(RuntimeError, match="disk on fire"):
            fail()
        assert [file.read_bytes() for file in path.parent.iterdir()] == ([before] if names else [])


def test_adding_members_keeps_the_places_of_the_others(path: Path) -> None:
    fill(path, NAMES[:2])
    before = archive.members(path)
    with archive.Writer(path) as writer:
        writer.add(NAMES[2], array(2))
        assert archive.members(path) == before, "another process may be reading it"
    after = archive.members(path)
    assert {name: after[name] for name in before} == before
    assert list(after) == NAMES


@given(data=st.data())
def test_any_truncation_is_detected(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(whole) - 1), label="cut")
    path = _write(tmp_path_factory.mktemp("cut") / "features.zip", whole[:cut])
    with pytest.raises(
        ValueError, match=rf"features\.zip \({cut} bytes\) is not a complete zip .*prepare the data again"
    ):
        archive.check(path)


def test_a_missing_archive_is_reported(path: Path) -> None:
    with pytest.raises(ValueError, match=r"features\.zip is missing.*mla-prepare"):
        archive.check(path)


def test_a_compressed_archive_is_reported(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as other:
        other.writestr("a.npy", b"x" * 1_000)
    with pytest.raises(ValueError, match=r"a\.npy is compressed, but fairseq reads bytes in place"):
        archive.check(path)


def test_a_manifest_of_another_archive_is_reported(path: Path) -> None:
    fill(path)
    archive.check(path, archive.members(path).values())
    with pytest.raises(ValueError, match=r"train_st\.tsv does not match .*1 places.*first at byte 7"):
        archive.check(path, [*archive.members(path).values(), (7, 100)], wanted_by=Path("train_st.tsv"))


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(ValueError, match=r"a\.zip is not a regular file"):
        archive.read(tmp_path / "a.zip", 0, 10)
