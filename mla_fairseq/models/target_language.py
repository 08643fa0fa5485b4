"""The target languages of multilingual models: each target begins with a forced tag, such as ``<lang:de>``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairseq.data import Dictionary

_TAG = re.compile(r"<lang:(.+)>")  # fairseq's SpeechToTextDataset.LANG_TAG_TEMPLATE


def is_tag(symbol: str) -> bool:
    """Return whether a symbol of a dictionary is the tag of a language."""
    return _TAG.fullmatch(symbol) is not None


def languages(dictionary: Dictionary) -> list[str]:
    """Return the languages whose tags a dictionary has, sorted."""
    return sorted(match[1] for match in map(_TAG.fullmatch, dictionary.symbols) if match)


def forced_tokens(
    dictionary: Dictionary, prefix_size: int, language: str | None, option: str = "--tgt-lang"
) -> list[int]:
    """Return the tokens that every translation into ``language`` begins with.

    Args:
        dictionary: of target tokens.
        prefix_size: number of these tokens, 0 for a model of one language.
        language: the target language; ``None``: not given.
        option: what gives the language, for messages.

    Raises:
        ValueError: an unknown language, none for a multilingual model, or one for a model of one language.
    """
    tags = {name: [dictionary.index(f"<lang:{name}>")] for name in languages(dictionary)}
    return choose(tags if prefix_size else None, language, option)


def choose(tags: Mapping[str, list[int]] | None, language: str | None, option: str) -> list[int]:
    """Return the tokens of a language; ``tags``: those of each language, ``None`` for a model of one language.

    Raises:
        ValueError: as ``forced_tokens``.
    """
    if tags is None:
        if language is not None:
            raise ValueError(f"{option} is {language}, but this model has no target-language tags: remove it")
        return []
    known = ", ".join(sorted(tags))
    if language is None:
        raise ValueError(f"this model translates into several languages ({known}): choose one by {option}")
    if language not in tags:
        raise ValueError(f"{language!r} is no target language of this model: use one of {known}")
    return tags[language]


def check_trained(trained: bool | None, tags: bool) -> None:
    """Check that a model is used as it was trained; ``trained``: with tags or not, ``None`` where that is not known.

    Raises:
        ValueError: it was trained with tags and the data have none, or the other way round.
    """
    if trained is not None and trained != tags:
        was, has, fix = ("with", "lacks", "add it") if trained else ("without", "has", "remove it")
        raise ValueError(
            f"this model was trained {was} target-language tags, but the data configuration {has} "
            f"prepend_tgt_lang_tag: true: {fix}, or use the data folder of the model"
        )
