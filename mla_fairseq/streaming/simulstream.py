"""A speech processor for simulstream (extra ``simulstream``): recordings of any length, one model for all clients.

It needs no SimulEval, and no adapter that cuts recordings into sentences: a ``LongSession`` does that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import librosa
import numpy as np
from simulstream.server.speech_processors import SAMPLE_RATE, SpeechProcessor
from simulstream.server.speech_processors.incremental_output import IncrementalOutput

from mla_fairseq.errors import user_errors
from mla_fairseq.streaming.choice import CHOICES, SEGMENT, WAIT_K, begin_session, suitable
from mla_fairseq.streaming.detectors import BLOCK, Detector, named_detector
from mla_fairseq.streaming.languages import check_language, manifest_languages
from mla_fairseq.streaming.long import LongSession
from mla_fairseq.streaming.search import SearchOptions
from mla_fairseq.streaming.session import Emission, Session
from mla_fairseq.streaming.settings import Settings
from mla_fairseq.streaming.translator import Translator
from mla_fairseq.streaming.words import SPACE


class Processor(SpeechProcessor):
    """Translate streams of any length.

    The configuration has ``type: mla_fairseq.streaming.simulstream.Processor`` and the keys of ``Settings``. All
    processors of a server share one model.

    Tokens are whole words, each with the sign of SentencePiece before it, and none is ever deleted. simulstream's
    scorers and OmniSTEval read them with ``detokenizer_type: simuleval`` and ``latency_unit: spm``.

    Attributes:
        service: the model and what else all streams share.
        session: the stream so far; ``None`` before its first samples.
        language: its target language.
        refused: messages about the languages that the client asked for in vain.
    """

    latest: ClassVar[tuple[dict[str, Any], Service] | None] = None

    @classmethod
    def load_model(cls, config: SimpleNamespace) -> None:
        """Load the model, unless the last configuration was the same.

        Raises:
            UserError: a key or value of the configuration is wrong, or the model does not suit it.
        """
        if cls.latest is None or cls.latest[0] != vars(config):  # simulstream calls this for every processor of a pool
            with user_errors():
                cls.latest = dict(vars(config)), Service.load(Settings.read(config))

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self.load_model(config)
        assert self.latest
        self.service = self.latest[1]
        self.clear()

    @property
    def speech_chunk_size(self) -> float:
        """Return the seconds of audio that simulstream passes at once, at least."""
        return self.service.chunk

    def clear(self) -> None:
        """Wait for another client."""
        self.session: LongSession | None = None
        self.language = self.service.settings.tgt_lang
        self.refused: dict[str, str] = {}

    def process_chunk(self, waveform: np.ndarray) -> IncrementalOutput:
        """Return the words that the next samples (N,) float32 at 16 kHz make final.

        Raises:
            ValueError: the client asked for a language that the model lacks, or the samples cannot be used.
        """
        for message in self.refused.values():  # the server only logs what the setters raise
            raise ValueError(message)
        self.session = self.session or self.service.begin(self.language)
        return self._output(self.session.push(waveform))

    def end_of_stream(self) -> IncrementalOutput:
        """Return the rest of the translation; the next chunk starts another stream in the same language."""
        emissions = self.session.finish() if self.session else []
        self.session = None
        return self._output(emissions)

    def set_source_language(self, language: str) -> None:
        """Check the source language.

        Raises:
            ValueError: the data or the configuration name another one; the stream is not translated.
        """
        self._check("source", language, self.service.source)

    def set_target_language(self, language: str) -> None:
        """Choose the target language of the stretches of speech that begin from now on.

        Raises:
            ValueError: the model has others; the stream is not translated.
        """
        self._check("target", language, self.service.target)
        self.language = language
        if self.session:
            self.session.change(*self.service.stretch(language))

    def _check(self, kind: str, language: str, known: Collection[str]) -> None:
        self.refused.pop(kind, None)
        try:
            check_language(kind, language, known)
        except ValueError as error:
            self.refused[kind] = str(error)
            raise

    def tokens_to_string(self, tokens: list[str]) -> str:
        """Return the words with a space before each, so that texts can be joined."""
        return "".join(tokens).replace(SPACE, " ")

    def _output(self, emissions: Iterable[Emission]) -> IncrementalOutput:
        tokens = [SPACE + word for emission in emissions for word in emission.text.split()]
        return IncrementalOutput(tokens, self.tokens_to_string(tokens), [], "")


@dataclass(frozen=True)
class Service:
    """What all streams of a configuration share.

    Attributes:
        settings: the configuration.
        translator: the model.
        source, target: its languages; empty if nothing names them.
        detector: finds speech; its copies serve the streams. ``None``: the choice of ``LongSession``.
    """

    settings: Settings
    translator: Translator
    source: Collection[str]
    target: Collection[str]
    detector: Detector | None = None

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Load a model, and start a stream, which reports settings that are not possible.

        Raises:
            ValueError: a file or a value cannot be used.
            UserError: the packages of the detector are not installed.
        """
        translator = Translator.load(settings.model_path, settings.data_bin, settings.config_yaml, settings.overrides)
        translator.to(settings.device)
        source, target = manifest_languages(Path(settings.data_bin))
        target = set(translator.languages) or target  # a model of several has their tags
        source, target = _known("source", settings.src_lang, source), _known("target", settings.tgt_lang, target)
        service = cls(settings, translator, source, target)
        service.begin(settings.tgt_lang or min(target, default=None))  # reports now what does not suit the model
        policy = settings.policy or suitable(translator)[0]
        if settings.number is not None and not CHOICES[policy].number:
            raise ValueError(f"number has no effect under the policy {policy}: remove it")
        librosa.resample(np.zeros(480), orig_sr=48_000, target_sr=SAMPLE_RATE)  # the first time takes seconds
        return replace(service, detector=named_detector(settings.detector, translator.has_boundary))

    def begin(self, language: str | None) -> LongSession:
        """Begin a stream that is translated into ``language``, which a model of one target language ignores.

        Raises:
            ValueError: a setting is not possible, or a model of several target languages needs one.
        """
        session, segment = self.stretch(language)
        detector = self.detector and self.detector.fork()
        return LongSession(session, detector, self.settings.pause, self.settings.longest, segment)

    def stretch(self, language: str | None) -> tuple[Session, int]:
        """Begin a session of one stretch of speech; return it, and the blocks of 40 ms that it gets at once.

        Raises:
            ValueError: as ``begin``.
        """
        use, tags = self.settings, self.translator.languages
        limits = use.max_len_a, use.max_len_b
        options = SearchOptions(use.beam, use.lenpen, *limits, language if tags else None, use.ctc_weight)
        return begin_session(self.translator, use.policy, use.number, options)

    @property
    def chunk(self) -> float:
        """Return the seconds of audio in a chunk: by default those after which the policy may emit words."""
        rule = self.translator.wait_k if WAIT_K in suitable(self.translator) else None
        return self.settings.speech_chunk_size or (rule.ratio if rule else SEGMENT) * BLOCK / SAMPLE_RATE


def _known(kind: str, chosen: str | None, named: set[str]) -> set[str]:
    """Return the languages of a model: those that its data name, or else the one of the configuration.

    Raises:
        ValueError: the configuration has one that the data do not name.
    """
    if chosen is None:
        return named
    check_language(kind, chosen, named)
    return named or {chosen}
