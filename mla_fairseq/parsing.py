"""Parse YAML and JSON that somebody else wrote, without exhausting stack, memory or time.

YAML's aliases are refused, because a few lines of them can stand for billions of values, or for a value inside itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from mla_fairseq.json_text import DEEP, DEEPEST
from mla_fairseq.json_text import parse_json as parse_json

_EVENTS = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # libyaml's: twenty times as fast


def parse_yaml(text: str, strings: bool = False) -> Any:
    """Return the value in a YAML text.

    Args:
        text: the text.
        strings: keep every scalar as it is written: YAML's types would make a speaker 007 the number 7.

    Raises:
        ValueError: the text is not YAML, or has what ``yaml_events`` refuses; the message is the reason in one line.
    """
    for _ in yaml_events(text):
        pass
    try:
        return yaml.load(text, Loader=_EVENTS if strings else yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: the 45th of a month, a number of 5,000 digits
        raise ValueError(" ".join(str(error).split())) from error


def yaml_events(text: str) -> Iterator[yaml.Event]:
    """Yield what a YAML text consists of, one scalar or bracket at a time, which needs no stack.

    Raises:
        ValueError: the text is not YAML, or has aliases, tags or deep nesting.
    """
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_EVENTS):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"{_place(event)} is {DEEP}")
            _check_event(event)
            yield event
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _place(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark else "it"


def _check_event(event: yaml.Event) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise ValueError(f"{_place(event)} has an alias, *{event.anchor}: write the value in full")
    if tag := getattr(event, "tag", None):
        raise ValueError(f"{_place(event)} has a tag, {tag}: remove it")
