"""Read the Multilingual TEDx corpus: MuST-C's layout, but the recordings that the yaml names as wav are flac files.

    PAIR/data/{train,valid,test}/wav/TALK.flac
    PAIR/data/{train,valid,test}/txt/{SPLIT.yaml,SPLIT.es,SPLIT.en}

PAIR is ``es-en`` for translations, or ``es-es`` for transcripts alone (``--task asr``).
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from mla_fairseq.data.corpus import find_audio
from mla_fairseq.data.mustc import MuSTC


class MTEDx(MuSTC):
    """One language pair of Multilingual TEDx."""

    layout: ClassVar[str] = "mtedx"
    needs: ClassVar[str] = "PAIR/data/SPLIT/{wav/*.flac,txt}"

    @classmethod
    def found(cls, root: Path) -> bool:
        """Tell whether DATA/PAIR/data has flac files."""
        return any((root / "data").glob("*/wav/*.flac"))

    def audio(self, path: Path) -> Path:
        """Return the flac file in place of the wav file that does not exist."""
        return find_audio(path)
