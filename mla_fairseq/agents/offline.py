"""SimulEval agents of models trained on whole utterances."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from mla_fairseq.agents.agent import StreamingAgent
from mla_fairseq.streaming import (
    AlignAttPolicy,
    EDAttPolicy,
    HoldPolicy,
    LocalAgreementPolicy,
    OfflinePolicy,
    OfflineSession,
    OfflineWaitKPolicy,
    Session,
    Translator,
)


class OfflineAgent(StreamingAgent):
    """Base class of agents that re-decode at each segment; the model may be an offline one."""

    session_class = OfflineSession

    def build_session(self) -> Session:
        """Return a session for the next recording.

        Raises:
            ValueError: the flags do not suit the model, or it has monotonic attention.
        """
        if self.translator.monotonic:
            raise ValueError("this model has monotonic attention, whose heads decide when to emit: use MonotonicAgent")
        return super().build_session()


class AttentionAgent(OfflineAgent):
    """Base class of agents whose policy uses the cross-attention weights of one decoder layer."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of all agents and those of attention."""
        OfflineAgent.add_args(parser)
        parser.add_argument(
            "--attn-layer",
            type=int,
            metavar="I",
            help="decoder layer whose attention is used, from 0 (default: the one after the middle)",
        )
        parser.add_argument(
            "--attn-heads", type=int, nargs="+", metavar="I", help="attention heads to average, from 0 (default: all)"
        )
        parser.add_argument(
            "--skip-last",
            type=int,
            default=1,
            metavar="N",
            help="last encoder states whose weights are dropped; the last F are before them (default: %(default)s)",
        )
        parser.add_argument(
            "--skip-first",
            type=int,
            default=0,
            metavar="N",
            help="first encoder states whose weights are dropped (default: %(default)s)",
        )

    def build_options(self, args: Namespace) -> dict[str, Any]:
        """Return the keyword arguments of every session, with layer and heads."""
        return {**super().build_options(args), "layer": args.attn_layer, "heads": args.attn_heads}

    def build_session(self) -> Session:
        """Return a session for the next recording.

        Raises:
            ValueError: the flags do not suit the model; the message names ``--attn-layer`` or ``--attn-heads``.
        """
        try:
            return super().build_session()
        except ValueError as error:
            if str(error).startswith(("layer ", "heads ")):  # the arguments of the session
                raise ValueError(f"--attn-{error}") from error
            raise


class AlignAttAgent(AttentionAgent):
    """AlignAtt: WRITE until a token attends most to one of the last encoder states."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of attention and those of the policy."""
        AttentionAgent.add_args(parser)
        parser.add_argument(
            "--frame-num",
            type=int,
            default=4,
            metavar="F",
            help="last encoder states, 40 ms each; a token that attends most to one waits (default: %(default)s)",
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Return the AlignAtt policy."""
        return AlignAttPolicy(args.frame_num, skip_last=args.skip_last, skip_first=args.skip_first)


class EDAttAgent(AttentionAgent):
    """EDAtt: WRITE until a token has too much of its attention on the last encoder states."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of attention and those of the policy."""
        AttentionAgent.add_args(parser)
        parser.add_argument(
            "--attn-threshold",
            type=float,
            default=0.2,
            metavar="P",
            help="attention on the last F encoder states at which a token waits (default: %(default)s)",
        )
        parser.add_argument(
            "--frame-num",
            type=int,
            default=2,
            metavar="F",
            help="F, in encoder states of 40 ms (default: %(default)s)",
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Return the EDAtt policy."""
        return EDAttPolicy(args.attn_threshold, args.frame_num, skip_last=args.skip_last, skip_first=args.skip_first)


class LocalAgreementAgent(OfflineAgent):
    """Local agreement: WRITE the common prefix of the hypotheses of the last segments."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of all agents and those of the policy."""
        OfflineAgent.add_args(parser)
        parser.add_argument(
            "--agreeing",
            type=int,
            default=2,
            metavar="N",
            help="number of hypotheses that must agree (default: %(default)s)",
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Return the local agreement policy."""
        return LocalAgreementPolicy(args.agreeing)


class HoldAgent(OfflineAgent):
    """Hold-n: WRITE all but the last tokens of each hypothesis."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of all agents and those of the policy."""
        OfflineAgent.add_args(parser)
        parser.add_argument(
            "--hold", type=int, default=6, metavar="N", help="number of tokens held back (default: %(default)s)"
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Return the hold-n policy."""
        return HoldPolicy(args.hold)


class OfflineWaitKAgent(OfflineAgent):
    """Wait-k for models that were not trained with it; ``WaitKAgent`` is for models that were."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of all agents and those of the policy."""
        OfflineAgent.add_args(parser)
        parser.add_argument(
            "--waitk-lagging", type=int, default=3, metavar="K", help="k of wait-k (default: %(default)s)"
        )
        parser.add_argument(
            "--fixed-pre-decision-ratio",
            type=int,
            default=7,
            metavar="N",
            help="encoder states (40 ms each) per pre-decision step (default: %(default)s)",
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Return the offline wait-k policy."""
        return OfflineWaitKPolicy(args.waitk_lagging, args.fixed_pre_decision_ratio)
