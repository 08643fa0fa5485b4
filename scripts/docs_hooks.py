"""Hooks of the documentation site, for MkDocs and for griffe, which reads the docstrings.

MkDocs' hooks put documents and pictures that are outside docs/ on the site, and make links fit there. Links in the
sources are relative paths in the repository, so that they also work where the sources are read. A link from a page to a
file that is not on the site fails the strict build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/mustc/RESULTS.md": "results/mustc.md",
    "examples/simulst/RESULTS.md": "results/simulst.md",
    "examples/multilingual/RESULTS.md": "results/multilingual.md",
    "examples/tts/RESULTS.md": "results/tts.md",
}
SOURCES = {page: source for source, page in PAGES.items()}
JOINED = re.compile(r"^( +)(\w+(?:, \w+)+):(.*(?:\n\1 +.*)*)", re.MULTILINE)
CLASS_ATTRIBUTES = re.compile(r"^( *)Class attributes( \(.*\))?:$", re.MULTILINE)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the pictures of the examples."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for picture in sorted(ROOT.glob("examples/*/pictures/*.png")):
        files.append(File.generated(config, picture.relative_to(ROOT).as_posix(), abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the links of a page fit the site."""
    place = page.file.src_uri
    source = SOURCES.get(place, f"docs/{place}")

    def relink(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        target = PAGES.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(target, posixpath.dirname(place) or '.')}"

    return LINK.sub(relink, markdown)


class Docstrings(Extension):
    """Write what griffe's parser does not know in a form that it knows."""

    def on_object(self, *, obj: Object, **kwargs: object) -> None:
        """Repeat what is described once for several names, and show class attributes as attributes."""
        if obj.docstring:
            text = JOINED.sub(_separate, obj.docstring.value)
            obj.docstring.value = CLASS_ATTRIBUTES.sub(r"\1Attributes:", text)


def _separate(match: re.Match[str]) -> str:
    indent, names, description = match.groups()
    return "\n".join(f"{indent}{name}:{description}" for name in names.split(", "))
