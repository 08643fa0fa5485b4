"""Base class of the agents: pass SimulEval's samples to a session, and the session's words to SimulEval.

SimulEval asks for one action per source segment, and for none after the segment that ends the source. The action of the
last segment is a WRITE of the rest of the translation, and the only one marked as finished. SimulEval resets the agent
after a finished action; if it came earlier, the next recording would lose its first segment.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from argparse import ArgumentParser, Namespace
from types import SimpleNamespace
from typing import Any, ClassVar

from simuleval.agents import AgentStates, SpeechToTextAgent
from simuleval.agents.actions import Action, ReadAction, WriteAction
from simuleval.data.segments import EmptySegment, Segment

from mla_fairseq.agents.arguments import completed
from mla_fairseq.agents.long_form import add_long_form_args, long_form
from mla_fairseq.agents.recordings import check_sources
from mla_fairseq.errors import user_errors
from mla_fairseq.speech.resample import Samples
from mla_fairseq.streaming import (
    IncrementalSession,
    LongSession,
    OfflinePolicy,
    Policy,
    SearchOptions,
    Session,
    Translator,
)
from mla_fairseq.streaming.translator import parse_model_overrides

logger = logging.getLogger(__name__)

SENTENCE = 60.0  # seconds: hardly any sentence is longer


class StreamStates(AgentStates):
    """The state of one recording: its session, and the samples that were not yet pushed."""

    def __init__(self, agent: StreamingAgent) -> None:
        self.agent = agent
        super().__init__()

    def reset(self) -> None:
        """Start the next recording with a new session."""
        super().reset()
        self.samples = Samples()
        self.session = self.agent.begin()
        self.seconds = 0.0

    def update_source(self, segment: Segment) -> None:
        """Store the samples of a segment until ``policy`` pushes them.

        SimulEval's base class keeps all samples of the recording; this one does not.
        """
        self.source_finished = segment.finished
        if not isinstance(segment, EmptySegment):
            with user_errors():
                self.samples.add(segment.content, segment.sample_rate)
            self.source_sample_rate = segment.sample_rate
            self.seconds += len(segment.content) / segment.sample_rate
            self.agent.check_length(self.seconds)


class StreamingAgent(SpeechToTextAgent):
    """A SimulEval agent that runs one session per recording.

    A subclass builds the policy in ``build_policy`` and adds its flags in ``add_args``. A WRITE action has the words
    that the session emitted for the newest segment. They are final. With ``--long-form`` the session is a
    ``LongSession``, which translates every stretch of speech in the recording; without it, a recording is one sentence.
    """

    session_class: ClassVar[type[Session]] = IncrementalSession

    def __init__(self, args: Namespace | SimpleNamespace) -> None:
        with user_errors():
            args = completed(args, self.add_args)
            check_sources(args)
            overrides = parse_model_overrides(args.model_overrides)
            self.translator = Translator.load(args.model_path, args.data_bin, args.config_yaml, overrides)
            self.session_policy = self.build_policy(args, self.translator)
            self.session_options = self.build_options(args)
            # reports a wrong model or option now, not at the first recording
            self.long_form = long_form(args, self.build_session())
            self.begin()
        self.warned = False
        super().__init__(args)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags that all agents share."""
        add = parser.add_argument
        add("--model-path", required=True, metavar="FILE", help="checkpoint of the model")
        add("--data-bin", required=True, metavar="DIR", help="prepared data folder of the model")
        add("--config-yaml", default="config_st.yaml", metavar="FILE", help="data configuration (default: %(default)s)")
        add(
            "--model-overrides",
            default="{}",
            metavar="DICT",
            help="model options to change, as a Python dictionary, as in fairseq-generate (default: none)",
        )
        add("--beam", type=int, default=1, metavar="N", help="size of the beam; 1 is greedy (default: %(default)s)")
        add("--lenpen", type=float, default=1.0, metavar="P", help="length penalty (default: %(default)s)")
        add(
            "--max-len-a",
            type=float,
            default=0.1,
            metavar="A",
            help="limit of A * frames + B tokens in a sentence; a frame is 10 ms (default: %(default)s)",
        )
        add("--max-len-b", type=int, default=20, metavar="B", help="B in --max-len-a (default: %(default)s)")
        add(
            "--ctc-decoding-weight",
            type=float,
            default=0.0,
            metavar="W",
            help="weight of CTC prefix scores, from 0 to below 1, for models trained with --ctc-text target or both "
            "(default: 0, attention alone)",
        )
        help_ = "target language of a multilingual model, such as de (default: none)"
        add("--tgt-lang", dest="language", metavar="LANG", help=help_)
        parser.set_defaults(tgt_lang=None)  # SimulEval would open it: its flag of this name is a list for each sentence
        add_long_form_args(parser)

    @abstractmethod
    def build_policy(self, args: Namespace, translator: Translator) -> Policy | OfflinePolicy:
        """Return the policy that the flags describe.

        Raises:
            ValueError: the flags do not suit the model or each other.
        """

    def build_options(self, args: Namespace) -> dict[str, Any]:
        """Return the keyword arguments of every session."""
        limits = args.max_len_a, args.max_len_b
        return {"options": SearchOptions(args.beam, args.lenpen, *limits, args.language, args.ctc_decoding_weight)}

    def build_session(self) -> Session:
        """Return a session for the next recording.

        Raises:
            ValueError: the flags do not suit the model; the message names flags and agents.
        """
        self.check_encoder()
        return self.session_class(self.translator, self.session_policy, **self.session_options)

    def check_encoder(self) -> None:
        """Check that the encoder suits the sessions of the agent.

        Raises:
            ValueError: it is a full-context one, but the sessions are incremental.
        """
        if issubclass(self.session_class, IncrementalSession) and not self.translator.streams:
            raise ValueError(
                "this model has a full-context encoder: train one with --encoder-chunk-size, or use an agent for "
                "offline models, such as AlignAttAgent"
            )

    def begin(self) -> Session | LongSession:
        """Return what translates the next recording: a session, or a long one with ``--long-form``.

        Raises:
            ValueError: the flags do not suit the model; the message names flags and agents.
        """
        session = self.build_session()
        return self.long_form.begin(session) if self.long_form else session

    def check_length(self, seconds: float) -> None:
        """Warn once if the ``seconds`` of a recording are too many for the one sentence that a session translates."""
        if seconds > SENTENCE and not (self.long_form or self.warned):
            self.warned = True
            logger.warning("a recording of more than %.0f s is translated as one sentence: add --long-form", SENTENCE)

    def build_states(self) -> StreamStates:
        """Return the state that SimulEval keeps for one recording."""
        return StreamStates(self)

    def to(self, device: str, fp16: bool = False) -> None:
        """Move the model; SimulEval calls this for ``--device`` and ``--fp16`` after building the agent."""
        with user_errors():
            self.translator.to(device, fp16)
        self.reset()

    def policy(self, states: StreamStates | None = None) -> Action:
        """Push the newest segment; return a WRITE of the words that it makes final; without such words, a READ.

        Raises:
            UserError: the samples or the model cannot be used.
        """
        states = states or self.states
        with user_errors():
            samples = states.samples.take(final=states.source_finished)
            emissions = states.session.push(samples, final=states.source_finished)
        text = " ".join(emission.text for emission in emissions if emission.text)
        if states.source_finished:
            return WriteAction(text, finished=True)
        return WriteAction(text, finished=False) if text else ReadAction()
