"""Wait-k under SimulEval."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from mla_fairseq.agents.agent import StreamingAgent
from mla_fairseq.streaming import Policy, Translator, WaitKPolicy


class WaitKAgent(StreamingAgent):
    """Write one token per pre-decision step, k steps behind the speaker."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of every agent, and those of wait-k."""
        StreamingAgent.add_args(parser)
        parser.add_argument(
            "--waitk-lagging", type=int, metavar="K", help="k (default: that of training; the middle of a range)"
        )
        parser.add_argument(
            "--fixed-pre-decision-ratio",
            type=int,
            metavar="N",
            help="encoder states (40 ms) read at once (default: that of training)",
        )

    def build_policy(self, args: Namespace, translator: Translator) -> Policy:
        """Return wait-k with the numbers of the flags, by default those of training.

        Raises:
            ValueError: a monotonic model, an offline model without k and ratio, or numbers below 1.
        """
        if translator.model.decoder.monotonic is not None:
            raise ValueError("this model has monotonic attention, whose heads decide when to write: use MonotonicAgent")
        lagging, ratio = args.waitk_lagging, args.fixed_pre_decision_ratio
        if trained := translator.wait_k:
            lagging = trained.middle if lagging is None else lagging
            ratio = trained.ratio if ratio is None else ratio
        if lagging is None or ratio is None:
            raise ValueError("this model was trained offline: give --waitk-lagging and --fixed-pre-decision-ratio")
        return WaitKPolicy(lagging, ratio)
