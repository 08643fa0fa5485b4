"""What the tests of the documents share: all documents, and the code blocks in them."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in zip(NAMES, DOCUMENTS, strict=True)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """Yield document and text of each block in a language; an indented block is one of shell commands."""
    for name, text in TEXTS.items():
        yield from ((name, body) for found, body in FENCE.findall(text) if found == language)
        if language == "sh":
            yield from ((name, body) for body in re.findall(r"(?:^    .+\n)+", FENCE.sub("", text), re.MULTILINE))
