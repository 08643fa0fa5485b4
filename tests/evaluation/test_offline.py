"""Scores of offline translation."""

import pytest

from mla_fairseq.evaluation import offline
from mla_fairseq.evaluation.offline import Generated

SPEED = (
    "INFO:fairseq_cli.generate:Translated 1,000 sentences (3,000 tokens) in 45.9s (21.79 sentences/s, 65.38 tokens/s)"
)
OUTPUT = """\
T-1\tzwei Hunde
H-1\t-0.5\t▁zwei ▁Hun de
D-1\t-0.5\tzwei Hunde
P-1\t-0.5 -0.5
D-1\t-0.9\tdrei Hunde
T-0\tein Hund
D-0\t-0.1\tein "Hund"\twau
Generate tst with beam=5: BLEU = 50
"""


def test_the_best_translation_of_each_row_is_read(tmp_path):
    (tmp_path / "out.txt").write_text(OUTPUT, encoding="utf-8")
    found = offline.read_generated(tmp_path / "out.txt")
    assert found == Generated({1: "zwei Hunde", 0: 'ein "Hund"\twau'})


@pytest.mark.parametrize("where", ["output", "log"])
def test_the_speed_of_the_last_run_is_read(tmp_path, where):
    old = SPEED.replace("65.38", "11.11")
    text = f"{old}\n{SPEED}\n"
    (tmp_path / "out.txt").write_text(OUTPUT + (text if where == "output" else ""), encoding="utf-8")
    (tmp_path / "log").write_text(text if where == "log" else "", encoding="utf-8")
    found = offline.read_generated(tmp_path / "out.txt", tmp_path / "log")
    assert (found.sentences_per_second, found.tokens_per_second) == (21.79, 65.38)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(None, "is missing: run", id="missing"),
        pytest.param("T-0\tx\n", "contains no translation", id="none"),
        pytest.param("D-0\t-1.0\tx\nD-1\t", r"has a line that is cut short \('D-1\\t'\)", id="cut"),
    ],
)
def test_an_output_without_translations_is_reported(tmp_path, text, words):
    if text is not None:
        (tmp_path / "out.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"out\.txt.*{words}"):
        offline.read_generated(tmp_path / "out.txt")


def test_references_are_read_verbatim(tmp_path):
    (tmp_path / "x.tsv").write_text('id\taudio\tn_frames\ttgt_text\na\tz\t9\tsagt "ja\nb\tz\t9\t<unk> ist ein Wort\n')
    assert offline.read_references(tmp_path / "x.tsv") == ['sagt "ja', "<unk> ist ein Wort"]


def test_references_that_are_missing_are_reported(tmp_path):
    (tmp_path / "x.tsv").write_text("id\ttgt_text\na\tb\nc\n")
    with pytest.raises(ValueError, match=r"x\.tsv:3 has no tgt_text"):
        offline.read_references(tmp_path / "x.tsv")


def test_each_of_several_sets_is_scored(tmp_path):
    lines = {"a": ["ein Hund läuft weit weg"], "b": ["un chien court très loin", "un chat dort très bien"]}
    for name, texts in lines.items():
        rows = "".join(f"x\tz\t9\t{text}\n" for text in texts)
        (tmp_path / f"{name}.tsv").write_text(f"id\taudio\tn_frames\ttgt_text\n{rows}", encoding="utf-8")
    sets = offline.read_sets(tmp_path, "b,a")
    assert list(sets.items()) == [("b", lines["b"]), ("a", lines["a"])]
    scores = offline.score_sets([*lines["b"], "eine Katze"], sets)
    assert {name: score.sentences for name, score in scores.items()} == {"b": 2, "a": 1}
    assert scores["b"].bleu == pytest.approx(100)
    assert scores["a"].bleu == pytest.approx(0)


def test_a_skipped_sentence_is_scored_as_empty(caplog):
    assert offline.pair_up(Generated({2: "c", 0: "a"}), ["x", "y", "z"]) == ["a", "", "c"]
    assert "1 of 3 sentences were not translated" in caplog.text


def test_translations_of_another_split_are_refused():
    with pytest.raises(ValueError, match=r"row 3 has no reference \(the manifest has 3 rows\)"):
        offline.pair_up(Generated({3: "d"}), ["x", "y", "z"])


def test_scores_have_signatures():
    sentences = ["the cat sat on the mat .", "a dog barks at the old man ."]
    quality = offline.score(sentences, sentences)
    assert quality.bleu == pytest.approx(100.0)
    assert quality.chrf == pytest.approx(100.0)
    assert "tok:13a" in quality.bleu_signature
    assert "nw:0" in quality.chrf_signature
    assert quality.sentences == 2


def test_bleu_agrees_with_a_count_by_hand():
    """1-gram to 4-gram precisions 6/7, 4/6, 2/5, 1/4; lengths equal: the geometric mean is 48.89."""
    quality = offline.score(["a b c d x f g"], ["a b c d e f g"])
    assert quality.bleu == pytest.approx(100 * (6 / 7 * 4 / 6 * 2 / 5 * 1 / 4) ** 0.25, abs=1e-6)


def test_case_matters_unless_lowercase_is_set():
    assert offline.score(["Ein Hund läuft schnell"], ["ein hund läuft schnell"]).bleu < 100
    assert offline.score(["Ein Hund läuft schnell"], ["ein hund läuft schnell"], lowercase=True).bleu == pytest.approx(
        100
    )


@pytest.mark.parametrize(
    ("text", "reference", "rate"),
    [
        pytest.param("a b c", "a b c", 0.0, id="equal"),
        pytest.param("a x c", "a b c", 100 / 3, id="substitution"),
        pytest.param("a c", "a b c", 100 / 3, id="deletion"),
        pytest.param("a b b c", "a b c", 100 / 3, id="insertion"),
        pytest.param("", "a b", 100.0, id="empty"),
        pytest.param(" a\u00a0b\tc", "a b  c ", 0.0, id="white-space"),
        pytest.param("A, b", "a b", 50.0, id="case-and-punctuation"),
        pytest.param("x y z w", "a b", 200.0, id="above-100"),
    ],
)
def test_word_error_rate(text, reference, rate):
    assert offline.word_error_rate([text], [reference]) == pytest.approx(rate)


def test_word_error_rate_is_over_the_corpus():
    assert offline.word_error_rate(["a", "x y z"], ["b", "x y z"]) == pytest.approx(25.0)


def test_word_error_rate_needs_references():
    with pytest.raises(ValueError, match="no word in 2 references"):
        offline.word_error_rate(["a", "b"], ["", " "])
    with pytest.raises(ValueError, match=r"reference.* hypothes"):
        offline.word_error_rate(["a", "b"], ["a"])


@pytest.mark.parametrize(("count", "rows"), [(0, []), (1, [0]), (3, [0, 3, 6]), (99, list(range(10)))])
def test_samples_are_spread_over_the_test_set(count, rows):
    pairs = offline.samples([f"h{row}" for row in range(10)], [f"r{row}" for row in range(10)], count)
    assert pairs == [(f"r{row}", f"h{row}") for row in rows]


def test_transcripts_are_read_and_scored(tmp_path):
    (tmp_path / "out.txt").write_text(f"C-1\ttwo dogs\nC-0\ta\n{OUTPUT}", encoding="utf-8")
    found = offline.read_generated(tmp_path / "out.txt")
    assert found.transcripts == {1: "two dogs", 0: "a"}
    assert offline.ctc_word_error_rate(found.transcripts, ["A dog.", "Two dogs!"]) == 25.0
    assert offline.ctc_word_error_rate(found.transcripts, ["", "..."]) is None
