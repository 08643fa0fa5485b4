"""From a sentence to the symbols that a synthesiser reads: characters, or phonemes by espeak-ng."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache

from mla_fairseq.errors import install

log = logging.getLogger(__name__)
log.setLevel(logging.ERROR)  # phonemizer counts words, and warns where a number becomes several
UNITS = ("characters", "phonemes")
WORD_END = "|"
PUNCTUATION = ".,;:!?"
APOSTROPHES = str.maketrans("\u2019\u02bc", "''")
UNHEARD = "\0"
LETTER = rf"[^\s'{UNHEARD}{re.escape(PUNCTUATION)}]"
BETWEEN_LETTERS = re.compile(rf"(?<={LETTER}){UNHEARD}+(?={LETTER})")


@dataclass(frozen=True)
class SpokenText:
    """How texts become symbols; ``language`` is espeak-ng's name and says nothing for characters.

    Raises:
        ValueError: an unknown unit.
    """

    unit: str = "characters"
    language: str = "en-us"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"--unit must be one of {', '.join(UNITS)}, but is {self.unit!r}")

    def symbols(self, texts: Iterable[str]) -> list[list[str]]:
        """The symbols of each text; words are divided by ``|``.

        Raises:
            ValueError: phonemes of a language that espeak-ng does not know, or without the packages for them.
        """
        texts = [unicodedata.normalize("NFC", text).strip() for text in texts]
        if self.unit == "characters":
            return [_characters(text) for text in texts]
        return [_joined(line.split()) for line in _phonemize(texts, self.language)]

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> SpokenText:
        """As the training set of a prepared folder was read, from its configuration.

        Raises:
            ValueError: a folder that was prepared by another tool.
        """
        if "spoken_text" not in config:
            raise ValueError("this data folder does not say how texts became symbols: prepare it with prep_ljspeech.py")
        return cls(**config["spoken_text"])

    def unheard(self, texts: Iterable[str]) -> Counter[str]:
        """The signs that characters leave out, and how often; espeak-ng reads, or leaves out, what it will."""
        if self.unit == "phonemes":
            return Counter()
        signs = (sign for text in texts for sign in _plain(unicodedata.normalize("NFC", text)))
        return Counter(sign for sign in signs if not _is_heard(sign) and not sign.isspace())

    def settings(self) -> dict[str, str]:
        """What a data configuration keeps of it."""
        return asdict(self)


def _characters(text: str) -> list[str]:
    """Lower-case letters of any script, digits, apostrophes and marks that are heard.

    All others are left out; between two letters (a dash, a stroke) they end a word.
    """
    signs = "".join(sign if _is_heard(sign) or sign.isspace() else UNHEARD for sign in _plain(text))
    signs = BETWEEN_LETTERS.sub(" ", signs).replace(UNHEARD, "")
    return _joined(WORD_END if sign.isspace() else sign for sign in signs)


def _plain(text: str) -> str:
    return text.lower().translate(APOSTROPHES)


def _is_heard(sign: str) -> bool:
    """Letters, the accents and vowel signs that go with them, numbers, and the marks that are kept."""
    return sign == "'" or sign in PUNCTUATION or unicodedata.category(sign)[0] in "LMN"


def _joined(symbols: Iterable[str]) -> list[str]:
    """Without word ends at the beginning, at the end, or twice."""
    found: list[str] = []
    for symbol in symbols:
        if symbol != WORD_END or (found and found[-1] != WORD_END):
            found.append(symbol)
    return found[:-1] if found and found[-1] == WORD_END else found


@cache
def _backend(language: str):
    try:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise ValueError(f"phonemes need {error.name}: {install('tts')}, or take --unit characters") from error
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
        raise ValueError(f"espeak-ng does not know the language {language!r}: correct --language ({error})") from error


def _phonemize(texts: list[str], language: str) -> list[str]:
    """Phonemes of each text, divided by spaces, with ``|`` after each word."""
    from phonemizer.separator import Separator

    backend = _backend(language)
    spoken = backend.phonemize(texts, separator=Separator(phone=" ", word=f" {WORD_END} "))
    if len(spoken) != len(texts):
        raise ValueError(f"espeak-ng gave {len(spoken)} texts for {len(texts)}: look for empty ones")
    return [re.sub(rf"([{re.escape(PUNCTUATION)}])", r" \1 ", line) for line in spoken]
