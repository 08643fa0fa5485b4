"""What all agents share: SimulEval's samples into a session, the session's words into SimulEval's actions.

SimulEval asks for one action per source segment, and for none after the segment that ends the source. So that segment's
action writes the rest of the translation and is the only finished one: SimulEval resets the agent after a finished
action, and an earlier one would cost the next recording its first segment.
"""

from __future__ import annotations

from abc import abstractmethod
from argparse import ArgumentParser, Namespace
from typing import Any, ClassVar

from simuleval.agents import AgentStates, SpeechToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction
from simuleval.data.segments import EmptySegment, Segment

from mla_fairseq.agents.audio import Samples
from mla_fairseq.errors import user_errors
from mla_fairseq.streaming import IncrementalSession, OfflinePolicy, Policy, SearchOptions, Session, Translator


class StreamStates(AgentStates):
    """The state of one recording: its session, and the samples that the session has not processed."""

    def __init__(self, agent: StreamingAgent) -> None:
        self.agent = agent
        super().__init__()

    def reset(self) -> None:
        """Start the next recording with nothing of the last one."""
        super().reset()
        self.samples = Samples()
        self.session = self.agent.build_session()

    def update_source(self, segment: Segment) -> None:
        """Take a segment; unlike SimulEval's own states, keep no sample longer than needed."""
        self.source_finished = segment.finished
        if not isinstance(segment, EmptySegment):
            with user_errors():
                self.samples.add(segment.content, segment.sample_rate)
            self.source_sample_rate = segment.sample_rate


class StreamingAgent(SpeechToTextAgent):
    """A policy over a streaming session. A subclass names it: ``build_policy``, and ``add_args`` for its flags."""

    session_class: ClassVar[type[Session]] = IncrementalSession

    def __init__(self, args: Namespace) -> None:
        with user_errors():
            self.translator = Translator.load(args.model_path, args.data_bin, args.config_yaml)
            self.session_policy = self.build_policy(args, self.translator)
            self.session_options = self.build_options(args)
            self.build_session()  # reports what is wrong with model or options
        super().__init__(args)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of every agent."""
        parser.add_argument("--model-path", required=True, metavar="FILE", help="checkpoint of the model")
        parser.add_argument("--data-bin", required=True, metavar="DIR", help="folder of the model's prepared data")
        parser.add_argument("--config-yaml", default="config_st.yaml", metavar="FILE", help="data configuration in it")
        parser.add_argument(
            "--beam", type=int, default=1, metavar="N", help="hypotheses kept within the policy; 1 is greedy"
        )
        parser.add_argument("--lenpen", type=float, default=1.0, metavar="P", help="length penalty of the beam")
        parser.add_argument(
            "--max-len-a", type=float, default=0.1, metavar="A", help="at most A * frames (10 ms) + B tokens"
        )
        parser.add_argument("--max-len-b", type=int, default=20, metavar="B", help="see --max-len-a")

    @abstractmethod
    def build_policy(self, args: Namespace, translator: Translator) -> Policy | OfflinePolicy:
        """Return the policy of the flags.

        Raises:
            ValueError: flags that do not fit the model or each other.
        """

    def build_options(self, args: Namespace) -> dict[str, Any]:
        """Return the options of every session."""
        return {"options": SearchOptions(args.beam, args.lenpen, args.max_len_a, args.max_len_b)}

    def build_session(self) -> Session:
        """Return a session for the next recording."""
        return self.session_class(self.translator, self.session_policy, **self.session_options)

    def build_states(self) -> StreamStates:
        """Return the state that SimulEval keeps for one recording."""
        return StreamStates(self)

    def to(self, device: str, fp16: bool = False) -> None:
        """Move the model: SimulEval calls this for ``--device`` and ``--fp16`` once the agent is built."""
        with user_errors():
            self.translator.to(device, fp16)
        self.reset()

    def policy(self, states: StreamStates | None = None) -> Action:
        """Return the action for the segment that has just arrived."""
        states = states or self.states
        samples = states.samples.take(final=states.source_finished)
        emissions = states.session.push(samples, final=states.source_finished)
        text = " ".join(emission.text for emission in emissions if emission.text)
        if states.source_finished:
            return WriteAction(text, finished=True)
        return WriteAction(text, finished=False) if text else ReadAction()
