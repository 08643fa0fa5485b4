"""Transcripts as characters, and their word errors."""

import pytest

from mla_fairseq.models.ctc import word_errors
from mla_fairseq.transcripts import BLANK, SPACE, UNKNOWN, Alphabet, normalise


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("  Two dogs\u2014running; fast! ", "two dogs running fast"),
        ("It\u2019s the dogs' 'ball'.", "it's the dogs ball"),
        ("3.5 km, caf\u00e9 ", "3 5 km caf\u00e9"),
        ("cafe\u0301", "caf\u00e9"),
        ("\uff21\uff22 \u4f60\u597d\uff0c\u4e16\u754c", "ab \u4f60\u597d \u4e16\u754c"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("' '' ...", ""),
    ],
)
def test_the_form_of_a_transcript(text: str, form: str) -> None:
    assert normalise(text) == form == normalise(form)


def test_an_alphabet_gives_a_text_back() -> None:
    alphabet = Alphabet(f"e{SPACE}ab'")
    assert len(alphabet) == 9
    assert alphabet.encode("Abe, bea\u2019b!") == [6, 7, 4, 5, 7, 4, 6, 8, 7]
    assert alphabet.decode([BLANK, *alphabet.encode("Abe, bea'b"), BLANK, 1, 2]) == "abe bea'b"
    assert alphabet.encode("az") == [6, UNKNOWN] and alphabet.decode([6, UNKNOWN]) == "a?"


@pytest.mark.parametrize(
    ("found", "wanted", "errors"),
    [("a b c", "a b c", 0), ("a x c", "a b c", 1), ("a x c d", "a b c", 2), ("c", "a b c", 2), ("b a", "a b", 2)],
)
def test_word_errors_are_edits(found: str, wanted: str, errors: int) -> None:
    assert word_errors(found, wanted) == (errors, len(wanted.split()))


def test_word_errors_ignore_case_and_punctuation() -> None:
    assert word_errors("its a dog", "It's a dog.") == (1, 3)
    assert word_errors("", "one two") == (2, 2) and word_errors("one", "") == (1, 0)
