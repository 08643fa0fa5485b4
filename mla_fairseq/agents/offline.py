"""Policies for models trained on whole utterances, under SimulEval."""

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
    Translator,
)


class OfflineAgent(StreamingAgent):
    """A policy over hypotheses that are decoded again at each segment; the model may be an offline one."""

    session_class = OfflineSession


class AttentionAgent(OfflineAgent):
    """A policy that uses the cross-attention weights of one layer."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of every agent, and those of attention."""
        OfflineAgent.add_args(parser)
        parser.add_argument(
            "--attn-layer",
            type=int,
            metavar="I",
            help="decoder layer to use, from 0 (default: the one after the middle)",
        )
        parser.add_argument(
            "--attn-heads", type=int, nargs="+", metavar="I", help="heads to average, from 0 (default: all)"
        )

    def build_options(self, args: Namespace) -> dict[str, Any]:
        """Return the options of every session, and which attention to use."""
        return {**super().build_options(args), "layer": args.attn_layer, "heads": args.attn_heads}


class AlignAttAgent(AttentionAgent):
    """Write until a token attends most to one of the last encoder states."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of attention, and those of the policy."""
        AttentionAgent.add_args(parser)
        parser.add_argument(
            "--frame-num",
            type=int,
            default=4,
            metavar="F",
            help="a token waits if the encoder state (40 ms) that it attends to most is one of the last F (default: 4)",
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Return AlignAtt."""
        return AlignAttPolicy(args.frame_num)


class EDAttAgent(AttentionAgent):
    """Write until a token has too much of its attention on the last encoder states."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of attention, and those of the policy."""
        AttentionAgent.add_args(parser)
        parser.add_argument(
            "--attn-threshold",
            type=float,
            default=0.2,
            metavar="P",
            help="largest share of attention on the last states (default: 0.2)",
        )
        parser.add_argument(
            "--frame-num", type=int, default=2, metavar="F", help="number of last encoder states (40 ms) (default: 2)"
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Return EDAtt."""
        return EDAttPolicy(args.attn_threshold, args.frame_num)


class LocalAgreementAgent(OfflineAgent):
    """Write the common prefix of the hypotheses of the last segments."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of every agent, and those of the policy."""
        OfflineAgent.add_args(parser)
        parser.add_argument(
            "--agreeing", type=int, default=2, metavar="N", help="hypotheses that have to agree (default: 2)"
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Return local agreement."""
        return LocalAgreementPolicy(args.agreeing)


class HoldAgent(OfflineAgent):
    """Write all but the last tokens of each hypothesis."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of every agent, and those of the policy."""
        OfflineAgent.add_args(parser)
        parser.add_argument("--hold", type=int, default=6, metavar="N", help="tokens held back (default: 6)")

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Return hold-n."""
        return HoldPolicy(args.hold)


class OfflineWaitKAgent(OfflineAgent):
    """Wait-k on a model that was not trained for it; ``WaitKAgent`` is for models that were."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of every agent, and those of the policy."""
        OfflineAgent.add_args(parser)
        parser.add_argument("--waitk-lagging", type=int, default=3, metavar="K", help="k (default: 3)")
        parser.add_argument(
            "--fixed-pre-decision-ratio",
            type=int,
            default=7,
            metavar="N",
            help="encoder states (40 ms) for each token (default: 7)",
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Return offline wait-k."""
        return OfflineWaitKPolicy(args.waitk_lagging, args.fixed_pre_decision_ratio)
