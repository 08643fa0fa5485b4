"""Manifests: fairseq reads them, and the places that they point at are found."""

from pathlib import Path

import pytest

from mla_fairseq.data import manifest

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
