"""An exported speech translation model, with which the sessions of ``mla_fairseq.streaming`` translate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from numpy.typing import NDArray

from mla_fairseq.edge.runtime.config import Config
from mla_fairseq.edge.runtime.decoder import GraphHypotheses, GraphRedecoding
from mla_fairseq.edge.runtime.folder import Folder, load_folder
from mla_fairseq.edge.runtime.graph import Graph
from mla_fairseq.edge.runtime.names import SPEECH_TO_TEXT
from mla_fairseq.edge.runtime.source import GraphSource
from mla_fairseq.models.target_language import choose
from mla_fairseq.models.wait_k import WaitK
from mla_fairseq.streaming.interface import StreamingModel
from mla_fairseq.streaming.search import SearchOptions


class EdgeTranslator(StreamingModel):
    """An exported speech translation model.

    Sessions share it and do not change it: ``IncrementalSession``, ``LongSession``, and ``OfflineSession`` under
    policies that need no attention weights.

    Args:
        folder: the checked folder.
        precision: ``int8`` or ``float32``; ``None``: int8 where the folder has it.

    Raises:
        ValueError: the folder lacks a file or a number, or its graphs do not fit each other.
    """

    def __init__(self, folder: Folder, precision: str | None = None) -> None:
        super().__init__()
        self.config, self.symbols = Config.read(folder), folder.tokens()
        self.frontend = Graph(folder.graph("frontend", "float32"))
        self.encoder, self.reader, self.decoder = (
            Graph(folder.graph(part, precision)) for part in ("encoder", "reader", "decoder")
        )
        size = self.decoder.shapes["scores"][1]
        if len(self.symbols) != size:
            raise ValueError(f"{folder.path} has {len(self.symbols)} tokens and {size} scores: export the model again")

    @classmethod
    def load(cls, folder: Path | str, precision: str | None = None) -> EdgeTranslator:
        """Load the folder of an exported model.

        Raises:
            ValueError: as ``load_folder`` and the class.
        """
        return cls(load_folder(folder, SPEECH_TO_TEXT), precision)

    def options(self, beam: int = 1, language: str | None = None) -> SearchOptions:
        """Return options of a search with the limits of the exported model.

        Raises:
            ValueError: the model was exported for fewer hypotheses than ``beam``.
        """
        if beam > self.config.beam:
            raise ValueError(f"the beam is {beam}, but the model was exported for {self.config.beam}: lower it")
        limits = self.config
        return SearchOptions(beam, limits.lenpen, limits.max_len_a, limits.max_len_b, language)

    @property
    def eos(self) -> int:
        """Return the symbol that ends a sentence."""
        return self.config.eos

    @property
    def pad(self) -> int:
        """Return the symbol that no sentence has."""
        return self.config.pad

    @property
    def streams(self) -> bool:
        """Return true: every exported encoder is chunked."""
        return True

    @property
    def monotonic(self) -> bool:
        """Return whether the model has monotonic attention."""
        return self.config.monotonic

    @property
    def has_boundary(self) -> bool:
        """Return whether the encoder has a boundary output."""
        return self.config.boundary_ahead is not None

    @property
    def attention(self) -> tuple[int, int]:
        """Return no layers and no heads: graphs return no attention weights."""
        return 0, 0

    @property
    def wait_k(self) -> WaitK | None:
        """Return the wait-k rule that the model was trained with; ``None``: without one."""
        return self.config.wait_k

    @property
    def languages(self) -> list[str]:
        """Return the target languages of a multilingual model; none for a model of one language."""
        return sorted(self.config.forced or {})

    def forced(self, language: str | None) -> list[int]:
        """Return the tokens that every translation into ``language`` begins with.

        Raises:
            ValueError: an unknown language, none for a multilingual model, or one for a model of one language.
        """
        return choose(self.config.forced, language, "tgt_lang (--tgt-lang)")

    def check_ctc(self) -> None:
        """Refuse: an exported model has no CTC outputs.

        Raises:
            ValueError: always.
        """
        raise ValueError("an exported model has no CTC outputs: leave out ctc_weight (--ctc-decoding-weight)")

    def frames_before(self, states: int) -> int:
        """Return the frames that must have arrived for the first ``states`` states, unless the recording ends."""
        return self.config.per_state * states + self.config.ahead

    def begin_source(self) -> GraphSource:
        """Return the source of a new recording."""
        return GraphSource(self)

    def begin_sentence(self, ctc_weight: float = 0.0) -> GraphHypotheses:
        """Return the decoder state of a new sentence, which has no CTC."""
        return GraphHypotheses(self)

    def redecode(
        self,
        states: NDArray,
        given: Sequence[int],
        layer: int | None,
        heads: Sequence[int],
        ctc_weight: float = 0.0,
        ended: bool = False,
    ) -> GraphRedecoding:
        """Return a new decoding from all ``states`` (S, C) after the tokens ``given``, without attention and CTC."""
        return GraphRedecoding(self, states, [self.eos, *given])

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Return the subword pieces of ``tokens``."""
        return [self.symbols[token] for token in tokens]
