"""What all agents share: SimulEval's samples into a session, the session's words into SimulEval's actions.

SimulEval's loop asks for one action per source segment, and never again after the segment that ends the source: then
everything that is left goes out in one finished write, after which SimulEval resets the agent for the next recording.
A write that is finished earlier would cost the next recording its first segment, so none is.
"""

from __future__ import annotations

from abc import abstractmethod
from argparse import ArgumentParser, Namespace
from typing import Any

from simuleval.agents import AgentStates, SpeechToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction
from simuleval.data.segments import EmptySegment, Segment

from mla_fairseq.agents.audio import Samples
from mla_fairseq.errors import user_errors
from mla_fairseq.streaming import OfflinePolicy, OfflineSession, Policy, Session, Translator


class StreamStates(AgentStates):
    """The state of one recording: its session, and the samples that the session has not had."""

    def __init__(self, agent: StreamingAgent) -> None:
        self.agent = agent
        super().__init__()

    def reset(self) -> None:
        """Begin the next recording; nothing crosses over."""
        super().reset()
        self.samples = Samples()
        self.session = self.agent.begin()

    def update_source(self, segment: Segment) -> None:
        """Take a segment; unlike SimulEval's own states keep no sample longer than needed."""
        self.source_finished = segment.finished
        if not isinstance(segment, EmptySegment):
            with user_errors():
                self.samples.add(segment.content, segment.sample_rate)
            self.source_sample_rate = segment.sample_rate


class StreamingAgent(SpeechToTextAgent):
    """A policy over a streaming session. A subclass says which: ``build_policy``, and ``add_args`` for its flags."""

    def __init__(self, args: Namespace) -> None:
        with user_errors():
            self.translator = Translator.load(args.model_path, args.data_bin, args.config_yaml)
            self.chosen = self.build_policy(args, self.translator)
            self.session_options = self.build_options(args)
            self.begin()  # what is wrong with model or options shows here
        super().__init__(args)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Flags of every agent."""
        parser.add_argument("--model-path", required=True, metavar="FILE", help="checkpoint of the model")
        parser.add_argument(
            "--data-bin", required=True, metavar="DIR", help="folder that the model's data was prepared in"
        )
        parser.add_argument("--config-yaml", default="config_st.yaml", metavar="FILE", help="data configuration in it")
        parser.add_argument(
            "--beam", type=int, default=1, metavar="N", help="hypotheses inside the read/write rule; 1: greedy"
        )
        parser.add_argument("--lenpen", type=float, default=1.0, metavar="P", help="length penalty of the beam")
        parser.add_argument(
            "--max-len-a", type=float, default=0.1, metavar="A", help="at most A * frames (10 ms) + B tokens"
        )
        parser.add_argument("--max-len-b", type=int, default=20, metavar="B", help="see --max-len-a")

    @abstractmethod
    def build_policy(self, args: Namespace, translator: Translator) -> Policy | OfflinePolicy:
        """The policy that the flags ask for.

        Raises:
            ValueError: flags that make none.
        """

    def build_options(self, args: Namespace) -> dict[str, Any]:
        """Options of every session."""
        names = ("beam", "lenpen", "max_len_a", "max_len_b")
        return {name: getattr(args, name) for name in names}

    def begin(self) -> Session | OfflineSession:
        """A session for the next recording."""
        return Session(self.translator, self.chosen, **self.session_options)

    def build_states(self) -> StreamStates:
        """What SimulEval keeps for one recording."""
        return StreamStates(self)

    def to(self, device: str, fp16: bool = False) -> None:
        """SimulEval's ``--device`` and ``--fp16``, told once the agent stands."""
        with user_errors():
            self.translator.to(device, fp16)
        self.reset()

    def policy(self, states: StreamStates | None = None) -> Action:
        """One action for the segment that has just come."""
        states = states or self.states
        samples = states.samples.take(final=states.source_finished)
        writes = states.session.push(samples, final=states.source_finished)
        text = " ".join(write.text for write in writes if write.text)
        if states.source_finished:
            return WriteAction(text, finished=True)
        return WriteAction(text, finished=False) if text else ReadAction()
