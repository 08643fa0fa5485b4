"""``fairseq-generate`` scores against the manifest's text, not against references rebuilt from tokens."""

import re
import shutil
from pathlib import Path

import pytest
import sacrebleu
import yaml

from mla_fairseq.data.vocabulary import Vocabulary
from tests.models.conftest import SIZES, TRAINING, write_corpus
from tests.programs import Done, run

WORDS = ["ab", "ba", "ca", "ac", "bac", "cab"]
UNSEEN = "Ünsäglich viele Ǎußenseiter…"  # SentencePiece makes three dots of the last character


def change_texts(path: Path) -> list[str]:
    """Add unseen characters to the texts of a manifest, and return the texts."""
    header, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row[header.index("tgt_text")] += f" {UNSEEN}"
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)), encoding="utf-8")
    return [row[header.index("tgt_text")] for row in rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder with a vocabulary of characters, and train a model in it."""
    folder = write_corpus(tmp_path_factory.mktemp("characters"), {"train": 8, "dev": 4, "test": 3}, WORDS)
    Vocabulary("char").train(WORDS, folder / "spm.model")
    shutil.move(folder / "spm.txt", folder / "dict.txt")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["bpe_tokenizer"] = {"bpe": "sentencepiece", "sentencepiece_model": "spm.model"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [folder, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
    done = run("fairseq-train", command, "--max-update", 2, "--save-dir", folder / "model")
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def texts(folder: Path) -> dict[str, list[str]]:
    """Return the texts of the evaluation sets, with unseen characters."""
    texts = {name: change_texts(folder / f"{name}.tsv") for name in ("dev", "test")}
    return texts | {"dev,test": texts["dev"] + texts["test"]}


def generate(folder: Path, name: str, *flags: object) -> Done:
    """Return the output of ``fairseq-generate``, whose hypotheses begin with all known characters of the reference."""
    command = [folder, "--task", "speech_to_text_mla", "--path", folder / "model/checkpoint_last.pt", "--cpu"]
    more = ["--gen-subset", name, "--beam", 2, "--prefix-size", 99, "--max-len-b", 99, "--num-workers", 0]
    done = run("fairseq-generate", command, more, *flags)
    assert done.code == 0, done.err
    return done


def hypotheses(done: Done) -> list[str]:
    """Return the texts that are scored, in the order of the set."""
    lines = (line.split("\t") for line in done.lines("D-"))
    return [text for _, text in sorted((int(name[2:]), text) for name, _, text in lines)]


def printed(done: Done) -> float:
    """Return the score that was printed."""
    (line,) = done.lines("Generate")
    return float(re.search(r"(?:=|WER:) ([\d.]+)", line.partition(": ")[2])[1])


@pytest.mark.parametrize("name", ["dev", "dev,test"])
def test_bleu_is_that_of_the_texts(folder: Path, texts, name: str) -> None:
    done = generate(folder, name, "--scoring", "sacrebleu")
    assert printed(done) == pytest.approx(sacrebleu.corpus_bleu(hypotheses(done), [texts[name]]).score, abs=0.01)
    references = (line.split("\t") for line in done.lines("T-"))
    assert [text for _, text in sorted((int(name[2:]), text) for name, text in references)] == texts[name]
    assert "sacrebleu is computed on the references of the manifest" in done.out
    quiet = generate(folder, name, "--scoring", "sacrebleu", "--quiet")
    assert quiet.lines("Generate") == done.lines("Generate") and not quiet.lines("T-")


@pytest.mark.slow
def test_other_scores_are_those_of_the_texts(
    folder: Path, texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = generate(folder, "dev", "--scoring", "chrf", "--batch-size", 1)
    assert printed(done) == pytest.approx(sacrebleu.corpus_chrf(hypotheses(done), [texts["dev"]]).score, abs=0.01)
    # a stand-in for the package, which is not one of this project's: the words of the references
    (tmp_path / "editdistance.py").write_text("def eval(reference, found): return reference.count('Ünsäglich')\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = sum(len(text.split()) for text in texts["dev"])
    assert printed(generate(folder, "dev", "--scoring", "wer")) == pytest.approx(100 * 4 / words, abs=0.01)


def test_bleu_of_tokens_is_said_to_be_that(folder: Path, texts) -> None:
    assert "--scoring bleu compares tokens of the vocabulary: use --scoring sacrebleu" in generate(folder, "dev").out


def test_words_without_a_tokenizer_are_kept(train, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "data")
    text = (tmp_path / "data/config.yaml").read_text().replace(str(corpus), str(tmp_path / "data"))
    (tmp_path / "data/config.yaml").write_text(text)
    texts = change_texts(tmp_path / "data/dev.tsv")
    path = train("--max-update 16")
    command = [tmp_path / "data", "--task", "speech_to_text_mla", "--path", path, "--gen-subset", "dev", "--cpu"]
    done = run("fairseq-generate", command, "--scoring", "sacrebleu", "--num-workers", 0)
    assert done.code == 0, done.err
    assert sorted(line.split("\t")[1] for line in done.lines("T-")) == sorted(texts)
