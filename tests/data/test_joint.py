"""A joint folder of several language pairs: the layout of fairseq's examples, a common vocabulary with tags."""

import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import yaml

from mla_fairseq.cli.prepare import main
from mla_fairseq.data import archive, manifest
from mla_fairseq.data.joint import JointPreparation
from mla_fairseq.data.prepare import ARCHIVE, Options
from mla_fairseq.data.vocabulary import GivenVocabulary, Vocabulary
from mla_fairseq.tasks.speech_to_text_mla import SpeechToTextMLATask

OPTIONS = Options(vocabulary=Vocabulary("unigram", 44), cmvn="global", specaugment="none")


@pytest.fixture
def pairs(make_pair) -> list[Path]:
    return [make_pair("en-de"), make_pair("en-fr", {"train": 2, "tst-COMMON": 1}, languages=("en", "fr"))]


def rows(path: Path) -> list[dict[str, str]]:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]


def test_the_layout_is_that_of_fairseqs_examples(pairs: list[Path], tmp_path: Path) -> None:
    config = JointPreparation(pairs, tmp_path / "joint", OPTIONS).run()
    folder, settings = config.parent, yaml.safe_load(config.read_text())
    names = ["dev_de", "train_de", "train_fr", "tst-COMMON_de", "tst-COMMON_fr"]
    assert sorted(path.name for path in folder.glob("*.tsv")) == [f"{name}_st.tsv" for name in names]
    assert settings["prepend_tgt_lang_tag"] is True
    vocabulary = sentencepiece.SentencePieceProcessor(str(folder / settings["bpe_tokenizer"]["sentencepiece_model"]))
    tags = [vocabulary.piece_to_id(f"<lang:{name}>") for name in ("de", "fr")]
    assert tags == [4, 5]  # after fairseq's special symbols
    assert (folder / settings["vocab_filename"]).read_text().splitlines()[:2] == ["<lang:de> 1", "<lang:fr> 1"]
    total = []
    for language in ("de", "fr"):
        for row in rows(folder / f"train_{language}_st.tsv"):
            assert row["tgt_lang"] == language
            assert row["tgt_text"].startswith(language)
            name, offset, length = row["audio"].rsplit(":", 2)
            assert name == f"en-{language}/{ARCHIVE}"
            total.append(archive.read(folder / name, int(offset), int(length)))
    statistics = np.load(folder / "gcmvn.npz")
    assert np.allclose(statistics["mean"], np.concatenate(total).mean(0), atol=1e-4)
    assert np.allclose(statistics["std"], np.concatenate(total).std(0), atol=1e-4)


def test_fairseq_sees_the_tag_first(pairs: list[Path], tmp_path: Path) -> None:
    config = JointPreparation(pairs, tmp_path / "joint", OPTIONS).run()
    moved = shutil.move(config.parent, tmp_path / "moved")
    task = SpeechToTextMLATask.setup_task(Namespace(data=str(moved), config_yaml=config.name, seed=1))
    task.load_dataset("train_de_st,train_fr_st")
    dataset, dictionary = task.dataset("train_de_st,train_fr_st"), task.target_dictionary
    assert [dictionary[dataset[row].target[0]] for row in (0, len(dataset) - 1)] == ["<lang:de>", "<lang:fr>"]
    assert dictionary.string(dataset[0].target, "sentencepiece").startswith("<lang:de> de ted_train_0")


def test_a_second_run_does_nothing_and_other_options_repeat_only_what_depends_on_them(
    pairs: list[Path], tmp_path: Path
) -> None:
    JointPreparation(pairs, tmp_path, OPTIONS).run()
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".zip", ".npz", ".tsv", ".model", ".txt")]
    before = {path: path.stat().st_mtime_ns for path in files}
    JointPreparation(pairs, tmp_path, OPTIONS).run()
    assert {path: path.stat().st_mtime_ns for path in files} == before
    JointPreparation(pairs, tmp_path, replace(OPTIONS, vocabulary=Vocabulary("char"))).run()
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert (tmp_path / "spm_char_st.model").is_file()
    wav = next((pairs[1] / "data/train/wav").glob("*.wav"))
    wav.write_bytes(wav.read_bytes()[:-20_000] + bytes(20_000))
    JointPreparation(pairs, tmp_path, OPTIONS).run()
    changed = {path.name for path in files if path.stat().st_mtime_ns != before[path]}
    assert changed == {ARCHIVE, "gcmvn.npz"}


def test_pairs_with_one_target_language_need_no_tags(make_pair, tmp_path: Path) -> None:
    pairs = [
        make_pair("en-fr", {"train": 2}, languages=("en", "fr")),
        make_pair("it-fr", {"train": 2}, languages=("it", "fr")),
    ]
    joint = JointPreparation(pairs, tmp_path / "joint", OPTIONS)
    config = joint.run()
    assert "prepend_tgt_lang_tag" not in config.read_text()
    assert joint.flags == "--train-subset train_en-fr_st,train_it-fr_st"
    assert {path.name for path in config.parent.glob("*.tsv")} == {"train_en-fr_st.tsv", "train_it-fr_st.tsv"}


def test_the_command_names_the_flags_of_training(
    pairs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--vocab-type", "char", "--specaugment", "none", "--workers", "1", "--output", str(tmp_path / "joint")]
    main(["--data", str(pairs[0].parent), "--pairs", "en-de", "en-fr", "--joint", *flags])
    assert "--train-subset train_de_st,train_fr_st --ignore-prefix-size 1 ..." in capsys.readouterr().err
    assert len(manifest.places(tmp_path / "joint/train_fr_st.tsv")) == 1


def test_pairs_that_are_no_several_are_refused(pairs: list[Path], tmp_path: Path) -> None:
    for given in (pairs[:1], [pairs[0], pairs[0]]):
        with pytest.raises(ValueError, match=r"--joint needs two or more different --pairs \(en-de"):
            JointPreparation(given, tmp_path, OPTIONS)


def test_a_given_vocabulary_needs_the_tags(pairs: list[Path], tmp_path: Path) -> None:
    first = JointPreparation(pairs, tmp_path / "first", OPTIONS)
    given = GivenVocabulary.read(first.run().parent / "spm_unigram44_st.model")
    again = JointPreparation(pairs, tmp_path / "again", replace(OPTIONS, vocabulary=given)).run()
    name = "spm_unigram44_st.txt"
    assert (again.parent / name).read_text() == (tmp_path / "first" / name).read_text()
    pairs[1] = pairs[1].rename(pairs[1].with_name("en-es"))
    for path in pairs[1].rglob("*.fr"):
        path.rename(path.with_suffix(".es"))
    with pytest.raises(ValueError, match="has no piece <lang:es>: give that of a folder with this language"):
        JointPreparation(pairs, tmp_path / "other", replace(OPTIONS, vocabulary=given)).run()


def test_recordings_that_are_tested_on_are_not_trained_on(
    pairs: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The splits of pairs that share recordings may differ."""
    tested, trained = pairs[0] / "data/tst-COMMON", pairs[1] / "data/train"
    (tested / "wav/ted_tst-COMMON_0.wav").rename(tested / "wav/ted_train_1.wav")
    listing = tested / "txt/tst-COMMON.yaml"
    listing.write_text(listing.read_text().replace("ted_tst-COMMON_0", "ted_train_1"))
    shutil.copy(tested / "wav/ted_train_1.wav", trained / "wav")
    other = pairs[0] / "data/train/wav/ted_train_1.wav"
    other.write_bytes(other.read_bytes() + bytes(2))
    with caplog.at_level("INFO"):
        folder = JointPreparation(pairs, tmp_path / "joint", OPTIONS).run().parent
    assert "train of en-fr: 3 of 6 segments left out" in caplog.text
    assert {row["id"].rpartition("_")[0] for row in rows(folder / "train_fr_st.tsv")} == {"ted_train_0"}
    assert len(rows(folder / "train_de_st.tsv")) == 18  # a recording of this name, but of another size
    assert len(rows(folder / "tst-COMMON_de_st.tsv")) == 6
