"""A speech processor for simulstream (extra ``simulstream``) that runs an agent of this package.

simulstream's wrapper of SimulEval agents knows no default of a flag, adds a space for each READ, and glues the last
words together; this class does not. It needs no adapter of sentences either: the agent finds them (``--long-form``).
"""

from __future__ import annotations

import copy
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from simuleval.data.segments import EmptySegment, Segment, SpeechSegment
from simulstream.server.speech_processors import SAMPLE_RATE, SpeechProcessor
from simulstream.server.speech_processors.incremental_output import IncrementalOutput

from mla_fairseq import agents
from mla_fairseq.agents.agent import StreamingAgent
from mla_fairseq.errors import UserError
from mla_fairseq.streaming.checks import is_finite

AGENTS = [name for name in agents.__all__ if name != StreamingAgent.__name__]
SIMULSTREAM = ("type", "speech_chunk_size", "latency_unit", "detokenizer_type")
"""Keys that simulstream reads; ``agent`` is ours, and all others are flags of the agent."""
SHORTEST = 0.01  # seconds of a chunk


class AgentProcessor(SpeechProcessor):
    """Translate streams of any length by an agent.

    The configuration has ``type`` (this class), ``speech_chunk_size`` in seconds, ``agent`` (such as ``WaitKAgent``),
    and the agent's flags with underscores for dashes. ``long_form`` is true unless it is set to false. A chunk size
    that is a multiple of 0.04 s wastes no time.

    Tokens are whole words, and none is ever deleted. All processors of a server share one model.

    Attributes:
        loaded: the agent of all streams.
        agent: that agent, or a copy with the target language of the client.
        states: the stream so far.
    """

    loaded: ClassVar[StreamingAgent]

    @classmethod
    def load_model(cls, config: SimpleNamespace) -> None:
        """Load the model.

        Raises:
            UserError: a key or value of the configuration is wrong, or the model does not suit the agent.
        """
        cls.loaded = load_agent(vars(config))

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__(config)
        self.clear()

    def clear(self) -> None:
        """Start a stream of another client, with the target language of the configuration."""
        self._begin(self.loaded)

    def process_chunk(self, waveform: np.ndarray) -> IncrementalOutput:
        """Return the words that the next samples (N,) float32 at 16 kHz make final."""
        return self._process(SpeechSegment(content=waveform, sample_rate=SAMPLE_RATE))

    def end_of_stream(self) -> IncrementalOutput:
        """Return the rest of the translation; the next chunk starts another stream."""
        output = self._process(EmptySegment(finished=True))
        self._begin(self.agent)
        return output

    def set_source_language(self, language: str) -> None:
        """Ignore the source language: a model has one."""

    def set_target_language(self, language: str) -> None:
        """Start a stream that is translated into ``language``; a model of one target language ignores it.

        Raises:
            ValueError: the model does not know the language; the stream continues in the language before.
        """
        agent, options = copy.copy(self.loaded), self.loaded.session_options
        if agent.translator.model.decoder.prefix_size:
            agent.session_options = {**options, "options": replace(options["options"], tgt_lang=language)}
            self._begin(agent)

    def _begin(self, agent: StreamingAgent) -> None:
        self.states = agent.build_states()
        self.agent = agent

    def tokens_to_string(self, tokens: list[str]) -> str:
        """Return the words with a space before each, so that texts can be joined."""
        return "".join(f" {token}" for token in tokens)

    def _process(self, segment: Segment) -> IncrementalOutput:
        self.states.update_source(segment)
        action = self.agent.policy(self.states)
        tokens = [] if action.is_read() else action.content.split()
        return IncrementalOutput(tokens, self.tokens_to_string(tokens), [], "")


def load_agent(config: dict[str, Any]) -> StreamingAgent:
    """Return the agent that the keys of a configuration describe.

    Raises:
        UserError: a key or value is wrong, or the model does not suit the agent.
    """
    name = config.get("agent")
    if name not in AGENTS:
        raise UserError(f"the configuration names no agent (agent: {name}): set it to one of {', '.join(AGENTS)}")
    agent_class = getattr(agents, name)
    chunk = config.get("speech_chunk_size", 0)
    if not (is_finite(chunk) and chunk >= SHORTEST):
        raise UserError(
            f"the configuration has no length of a chunk (speech_chunk_size: {chunk!r}): set it to seconds, at least "
            f"{SHORTEST}, such as 0.28"
        )
    return agent_class(parse(agent_class, {"long_form": True} | config))


def parse(agent_class: type[StreamingAgent], config: dict[str, Any]) -> Namespace:
    """Return the arguments of an agent, checked and completed by its parser as on a command line."""
    parser = ArgumentParser(prog="simulstream", usage=SUPPRESS, add_help=False, allow_abbrev=False)
    agent_class.add_args(parser)
    parser.set_defaults(source_segment_size=config["speech_chunk_size"] * 1000)
    return parser.parse_args(list(flags(config)))


def flags(config: dict[str, Any]) -> Iterator[str]:
    """Yield the flags of a configuration as words of a command line."""
    for key, value in config.items():
        if key in SIMULSTREAM or key == "agent" or value is False or value is None:
            continue
        yield f"--{key.replace('_', '-')}"
        if key == "model_overrides" and not isinstance(value, str):
            value = vars(value) if isinstance(value, SimpleNamespace) else value  # simulstream's form of a mapping
        if value is not True:
            yield from map(str, value if isinstance(value, list) else [value])
