"""The characters of transcripts: a preparation writes them, and reads them back."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mla_fairseq.data import ctc_vocabulary
from mla_fairseq.data.joint import JointPreparation
from mla_fairseq.data.mustc import MuSTC
from mla_fairseq.data.prepare import ARCHIVE, Options, prepare
from mla_fairseq.data.vocabulary import Vocabulary
from mla_fairseq.transcripts import SPACE

OPTIONS = Options(vocabulary=Vocabulary("char"))


def read(config: Path) -> str:
    return ctc_vocabulary.read(config, yaml.safe_load(config.read_text(encoding="utf-8")))


def test_a_preparation_writes_the_characters_of_the_transcripts(pair: Path) -> None:
    found = read(prepare(pair, None, OPTIONS))
    counts = dict(ctc_vocabulary.characters(one.source for one in MuSTC(pair).read("train")))
    assert found == "".join(counts) and set(found) >= {SPACE, "e"} and found.lower() == found
    assert list(counts.values()) == sorted(counts.values(), reverse=True)
    assert read(prepare(pair, None, replace(OPTIONS, task="asr"))) == found


def test_an_older_folder_gets_them_and_keeps_its_features(pair: Path) -> None:
    config = prepare(pair, None, OPTIONS)
    (pair / "ctc_vocab_st.txt").unlink()
    before, text = (pair / ARCHIVE).stat(), config.read_text(encoding="utf-8")
    config.write_text("".join(line for line in text.splitlines(True) if "ctc_vocab" not in line), encoding="utf-8")
    with pytest.raises(ValueError, match=r"config_st.yaml has no ctc_vocab_filename"):
        read(config)
    prepare(pair, None, OPTIONS)
    assert (pair / ARCHIVE).stat() == before and config.read_text(encoding="utf-8") == text and read(config)


def test_pairs_share_them(pair: Path, tmp_path: Path) -> None:
    other = pair.parent / "fr-de"
    shutil.copytree(pair, other)
    for split in ("train", "dev", "tst-COMMON"):
        txt = other / "data" / split / "txt"
        lines = (txt / f"{split}.en").read_text(encoding="utf-8")
        (txt / f"{split}.fr").write_text(lines.replace("e", "\u00e9"), encoding="utf-8")
    found = read(JointPreparation([pair, other], tmp_path / "out", OPTIONS).run())
    assert {"e", "\u00e9"} <= set(found) and len(set(found)) == len(found)


def test_a_corpus_without_transcripts_has_none(pair: Path) -> None:
    path = pair / "data/train/txt/train.en"
    path.write_text(".\n" * len(path.read_text(encoding="utf-8").splitlines()), encoding="utf-8")
    config = prepare(pair, None, OPTIONS)
    assert not (pair / "ctc_vocab_st.txt").exists()
    with pytest.raises(ValueError, match="or has no transcripts, so CTC cannot learn them: run mla-prepare again"):
        read(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ab 1\n", r"ctc_vocab_st.txt has a symbol that is not one character \('ab'\): run mla-prepare again"),
        ("a 1\na 2\n", "ctc_vocab_st.txt:2 repeats the symbol 'a'"),
        (None, "ctc_vocab_st.txt is missing: run mla-prepare again"),
    ],
)
def test_a_broken_file_is_reported(pair: Path, content: str | None, message: str) -> None:
    config, path = prepare(pair, None, OPTIONS), pair / "ctc_vocab_st.txt"
    path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read(config)
