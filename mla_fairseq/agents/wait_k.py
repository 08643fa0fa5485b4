"""Wait-k under SimulEval."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from mla_fairseq.agents.agent import StreamingAgent
from mla_fairseq.streaming import Policy, Translator, WaitKPolicy


class WaitKAgent(StreamingAgent):
    """Writes a token for each pre-decision step, k steps behind the speaker."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Flags of every agent, and the rule's."""
        StreamingAgent.add_args(parser)
        parser.add_argument(
            "--waitk-lagging", type=int, metavar="K", help="k (default: the one of training, of a range its middle)"
        )
        parser.add_argument(
            "--fixed-pre-decision-ratio",
            type=int,
            metavar="N",
            help="encoder states (40 ms) that are read at once (default: that of training)",
        )

    def build_policy(self, args: Namespace, translator: Translator) -> Policy:
        """Wait-k with the numbers of the flags, or else of the training.

        Raises:
            ValueError: an offline model and no k, or numbers below 1.
        """
        if translator.model.decoder.monotonic is not None:
            raise ValueError("the heads of this model decide for themselves: take MonotonicAgent")
        lagging, ratio = args.waitk_lagging, args.fixed_pre_decision_ratio
        if trained := translator.wait_k:
            lagging = trained.middle if lagging is None else lagging
            ratio = trained.ratio if ratio is None else ratio
        if lagging is None or ratio is None:
            raise ValueError("this model was trained offline: give --waitk-lagging and --fixed-pre-decision-ratio")
        return WaitKPolicy(lagging, ratio)
