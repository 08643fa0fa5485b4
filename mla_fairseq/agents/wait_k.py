"""The SimulEval agent of models trained with wait-k."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from mla_fairseq.agents.agent import StreamingAgent
from mla_fairseq.streaming import Policy, Translator, WaitKPolicy


class WaitKAgent(StreamingAgent):
    """WRITE one token per pre-decision step, starting after k steps."""

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the flags of all agents and those of wait-k."""
        StreamingAgent.add_args(parser)
        parser.add_argument(
            "--waitk-lagging",
            type=int,
            metavar="K",
            help="k (default: that of training, or the middle of its range)",
        )
        parser.add_argument(
            "--fixed-pre-decision-ratio",
            type=int,
            metavar="N",
            help="encoder states (40 ms each) per pre-decision step (default: that of training)",
        )

    def build_policy(self, args: Namespace, translator: Translator) -> Policy:
        """Return wait-k with k and ratio of the flags; by default those of training.

        Raises:
            ValueError: the model is monotonic, has a full-context encoder, or was not trained with wait-k and a flag is
                missing, or a number is below 1.
        """
        if translator.monotonic:
            raise ValueError("this model has monotonic attention, whose heads decide when to emit: use MonotonicAgent")
        self.check_encoder()
        lagging, ratio = args.waitk_lagging, args.fixed_pre_decision_ratio
        if trained := translator.wait_k:
            lagging = trained.middle if lagging is None else lagging
            ratio = trained.ratio if ratio is None else ratio
        if lagging is None or ratio is None:
            raise ValueError("this model was trained offline: give --waitk-lagging and --fixed-pre-decision-ratio")
        return WaitKPolicy(lagging, ratio)
