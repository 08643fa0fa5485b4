"""Vocabularies: fairseq's dictionary and SentencePiece agree, and a size that does not fit is reported."""

from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from mla_fairseq.data.vocabulary import GivenVocabulary, Vocabulary

WORDS = ["haus", "baum", "katze", "übel", "sonne", "zwei", "straße"]
LINES = [" ".join(np.random.default_rng(seed).choice(WORDS, 5)) for seed in range(200)]


@pytest.mark.parametrize(("kind", "size"), [("unigram", 26), ("bpe", 40), ("char", None)])
def test_fairseq_and_sentencepiece_have_equal_indices(tmp_path: Path, kind: str, size: int | None) -> None:
    data = pytest.importorskip("fairseq.data")
    model = tmp_path / "spm.model"
    Vocabulary(kind, size).train(LINES, model)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    dictionary = data.Dictionary.load(str(model.with_suffix(".txt")))
    assert len(dictionary) == pieces.get_piece_size() == (size or len(set("".join(LINES))) + 4)
    ids = dictionary.encode_line(" ".join(pieces.encode(LINES[0], out_type=str)), append_eos=False).tolist()
    assert ids == pieces.encode(LINES[0])
    assert dictionary.string(ids, "sentencepiece") == LINES[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spm.model", "spm.txt"]


def test_equal_texts_give_equal_models(tmp_path: Path) -> None:
    for name in ("a.model", "b.model"):
        Vocabulary("unigram", 26).train(LINES, tmp_path / name)
    assert (tmp_path / "a.txt").read_bytes() == (tmp_path / "b.txt").read_bytes()


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize(
    ("size", "message"),
    [
        pytest.param(8_000, r"--vocab-size is too large for 200 training lines \(8000\): use \d+ or less", id="large"),
        pytest.param(5, r"--vocab-size is too small for \d+ characters and special pieces \(5\)", id="small"),
    ],
)
def test_a_size_that_does_not_fit_is_reported(tmp_path: Path, kind: str, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Vocabulary(kind, size).train(LINES, tmp_path / "spm.model")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_reported_size_works(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="or less") as error:
        Vocabulary("unigram", 8_000).train(LINES, tmp_path / "spm.model")
    largest = int(str(error.value).split("use ")[1].split()[0])
    Vocabulary("unigram", largest).train(LINES, tmp_path / "spm.model")


@pytest.mark.parametrize("lines", [[], [""], ["", ""]], ids=["none", "an empty one", "empty ones"])
def test_no_text_is_reported(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(ValueError, match="no training text"):
        Vocabulary("char").train(lines, tmp_path / "spm.model")


@pytest.mark.parametrize("size", [None, 0, -3])
def test_a_size_must_be_positive(size: int | None) -> None:
    with pytest.raises(ValueError, match=rf"--vocab-size is not a number of pieces above 0 \({size}\)"):
        Vocabulary("unigram", size)


def test_char_ignores_the_size() -> None:
    assert Vocabulary("char", 8_000) == Vocabulary("char")
    assert (Vocabulary("char").prefix("st"), Vocabulary("bpe", 9).prefix("asr")) == ("spm_char_st", "spm_bpe9_asr")


def test_a_given_model_is_copied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Vocabulary("unigram", 26).train(LINES, tmp_path / "spm_a.model")
    given = GivenVocabulary.read(tmp_path / "spm_a.model")
    other = tmp_path / "other"
    other.mkdir()
    given.train(["haus qqq"], other / f"{given.prefix('st')}.model")
    for name in ("spm_a.model", "spm_a.txt"):
        assert (other / name).read_bytes() == (tmp_path / name).read_bytes()
    assert "has no piece for 1 of" in caplog.text


def test_a_given_model_that_does_not_fit_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "spm.model"
    with pytest.raises(ValueError, match=r"--vocab .* is missing: give the spm_"):
        GivenVocabulary.read(path)
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="is not a SentencePiece model"):
        GivenVocabulary.read(path)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_prefix=str(tmp_path / "spm"), vocab_size=26, minloglevel=2
    )
    with pytest.raises(ValueError, match=r"has special pieces at .*'pad_id': -1"):
        GivenVocabulary.read(path)
