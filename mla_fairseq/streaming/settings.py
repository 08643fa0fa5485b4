"""The configuration of ``Processor``: keys of a yaml file, with a default for each but the model and its data."""

from __future__ import annotations

import difflib
from dataclasses import MISSING, dataclass, fields
from types import SimpleNamespace
from typing import Any, Self

from mla_fairseq.streaming.checks import is_finite
from mla_fairseq.streaming.search import GREEDY
from mla_fairseq.streaming.translator import parse_model_overrides

OF_SIMULSTREAM = {"type": None, "detokenizer_type": "simuleval", "latency_unit": "spm"}
"""Keys that simulstream reads; with these values its scorers, and OmniSTEval, read the log right."""
SHORTEST = 0.01  # seconds of a chunk


@dataclass(frozen=True)
class Settings:
    """The keys of a configuration and their defaults.

    Attributes:
        model_path: checkpoint.
        data_bin: prepared data folder of the model.
        config_yaml: data configuration in that folder.
        model_overrides: options of the model to change: a mapping, or the text of a Python dictionary.
        policy, number: as for ``begin_long``: the name of the policy, and the number that sets its latency.
        beam, lenpen, max_len_a, max_len_b: as for ``SearchOptions``.
        ctc_weight: as for ``SearchOptions``.
        src_lang, tgt_lang: source language, and target language unless a client asks for another.
        detector: ``energy``, ``silero``, or ``boundary``, which is the default for models that have this output.
        pause, longest: as for ``LongSession``, in seconds.
        device: torch device.
        speech_chunk_size: seconds of audio that simulstream passes at once (default: the pre-decision step of a wait-k
            model, or 0.28).

    Raises:
        ValueError: a text is something else, or the chunk size is no number of at least 0.01.
    """

    model_path: str
    data_bin: str
    config_yaml: str = "config_st.yaml"
    model_overrides: Any = "{}"
    policy: str | None = None
    number: int | None = None
    beam: int = GREEDY.beam
    lenpen: float = GREEDY.lenpen
    max_len_a: float = GREEDY.max_len_a
    max_len_b: int = GREEDY.max_len_b
    ctc_weight: float = GREEDY.ctc_weight
    src_lang: str | None = None
    tgt_lang: str | None = None
    detector: str | None = None
    pause: float = 0.16
    longest: float = 30.0
    device: str = "cpu"
    speech_chunk_size: float | None = None

    def __post_init__(self) -> None:
        for name in ("model_path", "data_bin", "config_yaml", "policy", "src_lang", "tgt_lang", "detector", "device"):
            if not isinstance(value := getattr(self, name), str | None):
                raise ValueError(f"{name} is not a text ({value!r}): write it in quotes")  # YAML reads no as false
        size = self.speech_chunk_size
        if size is not None and not (is_finite(size) and size >= SHORTEST):
            raise ValueError(f"speech_chunk_size is {size!r}: give seconds, at least {SHORTEST}, such as 0.28")

    @classmethod
    def read(cls, config: SimpleNamespace) -> Self:
        """Return the settings of a configuration; a key without a value has its default.

        Raises:
            ValueError: a key is unknown or missing, or a value cannot be used.
        """
        given = {key: value for key, value in vars(config).items() if value is not None}
        known = {field.name: field.default for field in fields(cls)}
        for key in given:
            if key not in known and key not in OF_SIMULSTREAM:
                near = difflib.get_close_matches(key, known, 1) or sorted(known)
                raise ValueError(f"the configuration has an unknown key ({key}): use {' or '.join(near)}")
        for key, needed in OF_SIMULSTREAM.items():
            if (value := given.pop(key, needed)) != needed and needed:
                raise ValueError(f"{key} is {value!r}, with which scorers misread the log: set it to {needed}")
        for key, default in known.items():
            if default is MISSING and key not in given:
                raise ValueError(f"the configuration lacks {key}: add it")
        return cls(**given)

    @property
    def overrides(self) -> dict[str, Any]:
        """Return the options of the model to change.

        Raises:
            ValueError: they are no dictionary.
        """
        given = self.model_overrides
        if isinstance(given, SimpleNamespace):  # simulstream's form of a mapping
            return vars(given)
        return given if isinstance(given, dict) else parse_model_overrides(str(given))
