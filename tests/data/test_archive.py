"""The archive: what is written can be read in place, and what is not whole is never taken for whole."""

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
    """Bring all names into the archive; returns its bytes."""
    with archive.Writer(path) as writer:
        for seed, name in enumerate(NAMES):
            if name in names and name not in writer.names:
                writer.add(name, array(seed))
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return fill(tmp_path_factory.mktemp("whole") / "features.zip")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "features.zip"


def test_members_lie_where_they_are_said_to(path: Path) -> None:
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


@given(data=st.data())
def test_a_killed_run_is_continued_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    """A kill leaves the file cut anywhere; its tail may never have reached the disk."""
    cut = data.draw(st.integers(0, len(whole)), label="cut")
    lost = data.draw(st.integers(0, min(cut, 700)), label="lost")
    path = tmp_path_factory.mktemp("killed") / "features.zip"
    Path(f"{path}.part").write_bytes(whole[: cut - lost] + bytes(lost))
    assert fill(path) == whole
    assert os.listdir(path.parent) == ["features.zip"]


def test_whole_members_are_not_written_again(path: Path, whole: bytes) -> None:
    end_of_first = sum(next(iter(archive.members(_write(path, whole)).values())))
    os.rename(path, f"{path}.part")
    os.truncate(f"{path}.part", end_of_first + 100)
    with archive.Writer(path) as writer:
        assert writer.names == {NAMES[0]}
        assert Path(f"{path}.part").stat().st_size == end_of_first


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_an_error_leaves_no_archive_but_keeps_the_members(path: Path, whole: bytes) -> None:
    with pytest.raises(RuntimeError, match="disk on fire"), archive.Writer(path) as writer:
        writer.add(NAMES[0], array(0))
        raise RuntimeError("disk on fire")
    assert not path.exists()
    with archive.Writer(path) as writer:
        assert writer.names == {NAMES[0]}
        writer.add(NAMES[1], array(1))
        writer.add(NAMES[2], array(2))
    assert path.read_bytes() == whole


def test_members_can_be_added_later_and_the_old_stay_in_place(path: Path) -> None:
    fill(path, NAMES[:2])
    before = archive.members(path)
    with archive.Writer(path):  # somebody may be reading it meanwhile, or this run may be killed
        assert archive.members(path) == before
    fill(path)
    after = archive.members(path)
    assert {name: after[name] for name in before} == before
    assert list(after) == NAMES


def test_a_second_run_is_turned_away(path: Path) -> None:
    with archive.Writer(path), pytest.raises(ValueError, match=r"features\.zip\.part is being written by another run"):
        archive.Writer(path).__enter__()
    archive.check(path)


@given(data=st.data())
def test_any_truncation_is_found(tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(whole) - 1), label="cut")
    path = _write(tmp_path_factory.mktemp("cut") / "features.zip", whole[:cut])
    with pytest.raises(ValueError, match=rf"features\.zip \({cut} bytes\) is no whole zip .*prepare the data again"):
        archive.check(path)


def test_a_missing_archive_is_named(path: Path) -> None:
    with pytest.raises(ValueError, match=r"features\.zip is missing.*prep_mustc"):
        archive.check(path)


def test_a_compressed_archive_is_named(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as other:
        other.writestr("a.npy", b"x" * 1_000)
    with pytest.raises(ValueError, match=r"a\.npy is compressed, but fairseq reads bytes in place"):
        archive.check(path)


def test_a_manifest_of_another_archive_is_named(path: Path) -> None:
    fill(path)
    archive.check(path, archive.members(path).values())
    with pytest.raises(ValueError, match=r"train_st\.tsv points at 1 places of .*first at byte 7"):
        archive.check(path, [*archive.members(path).values(), (7, 100)], wanted_by=Path("train_st.tsv"))
