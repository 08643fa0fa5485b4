"""Parse JSON that somebody else wrote, without exhausting the stack. Needs the standard library alone."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 50  # levels of nesting; data configurations, recipes and logs have at most five
DEEP = f"nested more than {DEEPEST} levels deep"


def parse_json(text: str) -> Any:
    """Return the value in a JSON text.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply; the message is the reason in one line.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(DEEP) from None
    level, depth = [value], 0
    while level := [one for parent in level if isinstance(parent, dict | list) for one in _children(parent)]:
        if (depth := depth + 1) > DEEPEST:
            raise ValueError(DEEP)
    return value


def _children(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
