"""Conversion of texts to symbols."""

import sys

import pytest

from mla_fairseq.data.spoken_text import SpokenText, _backend


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "h e l l o , | w o r l d !"),
        ("  a\t\tb ", "a | b"),
        ("l'été (1931)", "l ' é t é | 1 9 3 1"),
        ("— …", ""),
        ("n\u0303a", "ñ a"),
        ("\u025b\u0301l\u0254", "\u025b \u0301 l \u0254"),
        ("\u0928\u092e\u0938\u094d\u0924\u0947", "\u0928 \u092e \u0938 \u094d \u0924 \u0947"),
        ("forty-two and/or one\u2014two", "f o r t y | t w o | a n d | o r | o n e | t w o"),
        ("don\u2019t", "d o n ' t"),
        ('a "quoted", _word_.', "a | q u o t e d , | w o r d ."),
        ("a|b", "a | b"),
    ],
)
def test_characters_that_are_spoken(text: str, expected: str) -> None:
    assert " ".join(SpokenText().symbols([text])[0]) == expected


def test_dropped_signs_are_counted() -> None:
    assert SpokenText().dropped(["forty-two (2-3)", "a b."]) == {"-": 2, "(": 1, ")": 1}
    assert not SpokenText("phonemes").dropped(["forty-two"])


def test_phonemes_are_those_of_espeak_with_words_and_punctuation_separated() -> None:
    pytest.importorskip("phonemizer", reason="phonemes need the extra tts")
    first, second = SpokenText("phonemes", "en-us").symbols(["Hello, world!", "Two books."])
    assert first == ["h", "ə", "l", "ˈoʊ", ",", "|", "w", "ˈɜː", "l", "d", "!"]  # noqa: RUF001
    assert second == ["t", "ˈuː", "|", "b", "ˈʊ", "k", "s", "."]  # noqa: RUF001


def test_an_unknown_language_is_reported() -> None:
    pytest.importorskip("phonemizer", reason="phonemes need the extra tts")
    with pytest.raises(ValueError, match=r"does not know the language 'xx-yy' .*: correct --language"):
        SpokenText("phonemes", "xx-yy").symbols(["a"])


def test_an_unknown_unit_is_reported() -> None:
    with pytest.raises(ValueError, match=r"unknown --unit \('words'\): choose one of characters, phonemes"):
        SpokenText("words")


def test_a_missing_package_for_phonemes_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    _backend.cache_clear()
    with pytest.raises(
        ValueError, match=r"--unit phonemes needs a package \(espeakng_loader\).*or use --unit characters"
    ):
        SpokenText("phonemes").symbols(["a"])
    _backend.cache_clear()
