"""Convert texts to the symbols that a text-to-speech model reads: characters, or phonemes by espeak-ng."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from mla_fairseq.errors import install

log = logging.getLogger(__name__)
log.setLevel(logging.ERROR)  # phonemizer warns whenever a number becomes several words
UNITS = ("characters", "phonemes")
WORD_END = "|"
PUNCTUATION = ".,;:!?"
APOSTROPHES = str.maketrans("\u2019\u02bc", "''")
DROPPED = "\0"  # replaces a character that is not spoken
LETTER = rf"[^\s'{DROPPED}{re.escape(PUNCTUATION)}]"
BETWEEN_LETTERS = re.compile(rf"(?<={LETTER}){DROPPED}+(?={LETTER})")


@dataclass(frozen=True)
class SpokenText:
    """How texts become symbols.

    Attributes:
        unit: ``characters`` or ``phonemes``.
        language: espeak-ng's name of the language; no effect on characters.

    Raises:
        ValueError: an unknown unit.
    """

    unit: str = "characters"
    language: str = "en-us"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unknown --unit ({self.unit!r}): choose one of {', '.join(UNITS)}")

    def symbols(self, texts: Iterable[str]) -> list[list[str]]:
        """Return the symbols of each text; words are separated by ``|``.

        Raises:
            ValueError: espeak-ng does not know the language, or a package for phonemes is not installed.
        """
        texts = [unicodedata.normalize("NFC", text).strip() for text in texts]
        if self.unit == "characters":
            return [_characters(text) for text in texts]
        return [_joined(line.split()) for line in _phonemize(texts, self.language)]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SpokenText:
        """Return the conversion that made a prepared folder, from its data configuration.

        Raises:
            ValueError: a folder that was prepared by another tool.
        """
        if "spoken_text" not in config:
            raise ValueError("the data configuration has no section spoken_text: prepare the data with mla-prepare-tts")
        return cls(**config["spoken_text"])

    def dropped(self, texts: Iterable[str]) -> Counter[str]:
        """Count the signs that are dropped from texts; for phonemes none, because espeak-ng does not report them."""
        if self.unit == "phonemes":
            return Counter()
        signs = (sign for text in texts for sign in _plain(unicodedata.normalize("NFC", text)))
        return Counter(sign for sign in signs if not _is_spoken(sign) and not sign.isspace())

    def settings(self) -> dict[str, str]:
        """Return the section ``spoken_text`` of the data configuration."""
        return asdict(self)


def _characters(text: str) -> list[str]:
    """Return the lower-case letters of any script, digits, apostrophes and punctuation of a text.

    Other signs are dropped; between two letters (a dash, a slash) they end a word.
    """
    signs = "".join(sign if _is_spoken(sign) or sign.isspace() else DROPPED for sign in _plain(text))
    signs = BETWEEN_LETTERS.sub(" ", signs).replace(DROPPED, "")
    return _joined(WORD_END if sign.isspace() else sign for sign in signs)


def _plain(text: str) -> str:
    """Return a text in lower case, with one form of apostrophe."""
    return text.lower().translate(APOSTROPHES)


def _is_spoken(sign: str) -> bool:
    """Tell whether a sign is kept: letters with their accents and vowel signs, numbers, apostrophes, punctuation."""
    # first letters of Unicode categories: letters, combining marks, numbers
    return sign == "'" or sign in PUNCTUATION or unicodedata.category(sign)[0] in "LMN"


def _joined(symbols: Iterable[str]) -> list[str]:
    """Return the symbols without word ends at the beginning, at the end, or in a row."""
    found: list[str] = []
    for symbol in symbols:
        if symbol != WORD_END or (found and found[-1] != WORD_END):
            found.append(symbol)
    return found[:-1] if found and found[-1] == WORD_END else found


@cache
def _backend(language: str) -> Any:
    """Return phonemizer's backend for a language; loading it takes a second.

    Raises:
        ValueError: an unknown language, or a package is not installed.
    """
    try:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise ValueError(
            f"--unit phonemes needs a package ({error.name}): {install('tts')}, or use --unit characters"
        ) from error
    EspeakWrapper.set_library(espeakng_loader.get_library_path())
    EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
    try:
        return EspeakBackend(
            language,
            punctuation_marks=PUNCTUATION,
            preserve_punctuation=True,
            with_stress=True,
            language_switch="remove-flags",
            logger=log,
        )
    except RuntimeError as error:
        raise ValueError(f"espeak-ng does not know the language {language!r} ({error}): correct --language") from error


def _phonemize(texts: list[str], language: str) -> list[str]:
    """Return the phonemes of each text, separated by spaces, with ``|`` after each word."""
    from phonemizer.separator import Separator

    backend = _backend(language)
    spoken = backend.phonemize(texts, separator=Separator(phone=" ", word=f" {WORD_END} "))
    if len(spoken) != len(texts):
        raise ValueError(f"espeak-ng returned {len(spoken)} of {len(texts)} texts: remove empty ones")
    return [re.sub(rf"([{re.escape(PUNCTUATION)}])", r" \1 ", line) for line in spoken]
