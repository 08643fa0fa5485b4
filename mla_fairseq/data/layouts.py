"""Open a corpus of any known layout."""

from __future__ import annotations

from pathlib import Path

from mla_fairseq.data.corpus import Corpus
from mla_fairseq.data.covost2 import CoVoST2
from mla_fairseq.data.europarl_st import EuroparlST
from mla_fairseq.data.mtedx import MTEDx
from mla_fairseq.data.mustc import MuSTC
from mla_fairseq.data.tabular import Manifests

LAYOUTS: dict[str, type[Corpus]] = {reader.layout: reader for reader in (MuSTC, MTEDx, CoVoST2, EuroparlST, Manifests)}
"""The reader of each layout."""


def open_corpus(pair: Path, layout: str | None = None, target_column: str | None = None) -> Corpus:
    """Return the corpus of a language pair.

    Args:
        pair: DATA/PAIR; not every layout has such a folder.
        layout: a name in ``LAYOUTS``; ``None``: the one whose files exist.
        target_column: column of plain manifests to train on in place of ``tgt_text``.

    Raises:
        ValueError: no layout or several fit, or a target column is given for another layout.
    """
    corpus = (LAYOUTS[layout] if layout else _detect(pair))(pair)
    if target_column is not None:
        if not isinstance(corpus, Manifests):
            raise ValueError(f"--target-column needs plain manifests, but {pair} is {corpus.layout}: remove it")
        corpus.target_column = target_column
    return corpus


def _detect(pair: Path) -> type[Corpus]:
    found = [reader for reader in LAYOUTS.values() if reader.found(pair)]
    if MTEDx in found:
        found.remove(MuSTC)  # whose folders it shares
    if not found:
        looked = "; ".join(f"{reader.layout}: {reader.needs}" for reader in LAYOUTS.values())
        raise ValueError(f"{pair.parent} has no corpus of the pair {pair.name}: arrange it as one of {looked}")
    if len(found) > 1:
        names = " and ".join(reader.layout for reader in found)
        raise ValueError(f"{pair.parent} has several corpora of the pair {pair.name} ({names}): add --corpus-format")
    return found[0]
