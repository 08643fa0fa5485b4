"""Manifests: fairseq reads them, and the places that they point at are found."""

from dataclasses import replace
from pathlib import Path

import pytest

from mla_fairseq.data import manifest
from mla_fairseq.files import read_tsv

ROW = manifest.Row("a_0", "f.zip:40:1288", 3, 'Er sagt: "nein."', "spk", "He says 'no'.", "en", "de")
COLUMNS = "id\taudio\tn_frames\ttgt_text"


def test_fairseq_reads_every_column(tmp_path: Path) -> None:
    dataset = pytest.importorskip("fairseq.data.audio.speech_to_text_dataset")
    manifest.write(tmp_path / "train_st.tsv", [ROW])
    (row,) = dataset.SpeechToTextDatasetCreator._load_samples_from_tsv(str(tmp_path), "train_st")
    assert row == {**vars(ROW), "n_frames": "3"}


def test_places_are_gathered_by_archive(tmp_path: Path) -> None:
    path = tmp_path / "train_st.tsv"
    path.write_text(f"{COLUMNS}\na\tf.zip:1:2\t1\tx\nb\tg:h.zip:3:4\t1\tx\nc\tf.zip:5:6\t1\tx\nd\tplain.wav\t1\tx\n")
    assert manifest.places(path) == {"f.zip": {(1, 2), (5, 6)}, "g:h.zip": {(3, 4)}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("id\tpath\n", r"lacks the column 'audio' \(it has \['id', 'path'\]\)", id="no audio"),
        pytest.param("id\taudio\ttgt_text\n", "lacks the column 'n_frames'", id="no lengths"),
        pytest.param(f"\ufeff{COLUMNS}\n", r"train_st\.tsv begins with a byte order mark: save it", id="mark"),
        pytest.param(f"{COLUMNS}\n", r"train_st\.tsv contains no utterance", id="empty"),
        pytest.param(f"{COLUMNS}\na\tb\t1\tx\tc\n", r"train_st\.tsv:2 has 5 of 4 columns", id="a column too many"),
        pytest.param(f"{COLUMNS}\na\tb\t1\tx\nc\n", r"train_st\.tsv:3 has 1 of 4 columns", id="cut short"),
    ],
)
def test_a_broken_manifest_is_reported(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "train_st.tsv").write_text(content)
    with pytest.raises(ValueError, match=message):
        manifest.places(tmp_path / "train_st.tsv")


def test_a_missing_manifest_is_reported_with_the_existing_ones(tmp_path: Path) -> None:
    for name in ("train_st.tsv", "dev_st.tsv"):
        (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match=r"train\.tsv is missing \(manifests in this folder: dev_st\.tsv, train_st\.tsv\)"
    ):
        manifest.places(tmp_path / "train.tsv")


@pytest.mark.parametrize("value", ["a\tb", "a\nb", "a\rb", "a\ud800"], ids=ascii)
@pytest.mark.parametrize("column", ["id", "audio", "tgt_text", "speaker", "src_text"])
def test_values_that_would_be_read_back_otherwise_are_refused(tmp_path: Path, column: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"train_st\.tsv: {column} of '.*' has a tab or a line break"):
        manifest.write(tmp_path / "train_st.tsv", [ROW, replace(ROW, **{column: value})])
    assert list(tmp_path.iterdir()) == []


def test_all_other_values_are_read_back(tmp_path: Path) -> None:
    """By fairseq, and by this package."""
    dataset = pytest.importorskip("fairseq.data.audio.speech_to_text_dataset")
    values = ["'\"", '"', "a\x0b\x0c\x1c\x85\u2028b", " a ", "\\t\\n", "\ufeff", "#", "x" * 100_000]
    written = [replace(ROW, id=str(i), speaker=value, tgt_text=value) for i, value in enumerate(values)]
    manifest.write(tmp_path / "train_st.tsv", written)
    found = dataset.SpeechToTextDatasetCreator._load_samples_from_tsv(str(tmp_path), "train_st")
    expected = [{**vars(row), "n_frames": "3"} for row in written]
    assert found == expected
    assert [row for _, row in manifest.rows(tmp_path / "train_st.tsv")] == expected
    assert read_tsv(tmp_path / "train_st.tsv") == expected
