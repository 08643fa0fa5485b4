"""Policies at inference time, over models that were not trained for them, under SimulEval."""

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
    """A policy over hypotheses that are written anew at each segment; the model may be an offline one."""

    def begin(self) -> OfflineSession:
        """A session for the next recording."""
        return OfflineSession(self.translator, self.chosen, **self.session_options)


class AttentionAgent(OfflineAgent):
    """A policy that looks at the cross-attention of one layer."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Flags of every agent, and where to look."""
        OfflineAgent.add_args(parser)
        parser.add_argument(
            "--attn-layer", type=int, metavar="I", help="decoder layer to look at, from 0 (default: after the middle)"
        )
        parser.add_argument(
            "--attn-heads", type=int, nargs="+", metavar="I", help="heads to average, from 0 (default: all)"
        )

    def build_options(self, args: Namespace) -> dict[str, Any]:
        """Options of every session, and where to look."""
        return {**super().build_options(args), "layer": args.attn_layer, "heads": args.attn_heads}


class AlignAttAgent(AttentionAgent):
    """Writes until a token attends most to what was heard last."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Flags of attention, and the policy's."""
        AttentionAgent.add_args(parser)
        parser.add_argument(
            "--frame-num",
            type=int,
            default=4,
            metavar="F",
            help="a token waits if the encoder state (40 ms) that it attends to most is one of the last F (default: 4)",
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """AlignAtt with so many frames."""
        return AlignAttPolicy(args.frame_num)


class EDAttAgent(AttentionAgent):
    """Writes until a token has too much of its attention on what was heard last."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Flags of attention, and the policy's."""
        AttentionAgent.add_args(parser)
        parser.add_argument(
            "--attn-threshold", type=float, default=0.2, metavar="P", help="most attention on them (default: 0.2)"
        )
        parser.add_argument(
            "--frame-num", type=int, default=2, metavar="F", help="encoder states (40 ms) that are last (default: 2)"
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """EDAtt with this threshold."""
        return EDAttPolicy(args.attn_threshold, args.frame_num)


class LocalAgreementAgent(OfflineAgent):
    """Writes what the hypotheses of the last segments begin with."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Flags of every agent, and the policy's."""
        OfflineAgent.add_args(parser)
        parser.add_argument(
            "--agreeing", type=int, default=2, metavar="N", help="hypotheses that have to agree (default: 2)"
        )

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Local agreement of so many."""
        return LocalAgreementPolicy(args.agreeing)


class HoldAgent(OfflineAgent):
    """Writes all but the last tokens of each hypothesis."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Flags of every agent, and the policy's."""
        OfflineAgent.add_args(parser)
        parser.add_argument("--hold", type=int, default=6, metavar="N", help="tokens that wait (default: 6)")

    def build_policy(self, args: Namespace, translator: Translator) -> OfflinePolicy:
        """Hold-n."""
        return HoldPolicy(args.hold)


class OfflineWaitKAgent(OfflineAgent):
    """Wait-k on a model that was not trained for it; WaitKAgent is for those that were."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Flags of every agent, and the policy's."""
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
        """Wait-k."""
        return OfflineWaitKPolicy(args.waitk_lagging, args.fixed_pre_decision_ratio)
