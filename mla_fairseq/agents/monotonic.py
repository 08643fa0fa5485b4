"""Monotonic attention under SimulEval."""

from __future__ import annotations

from argparse import Namespace

from mla_fairseq.agents.agent import StreamingAgent
from mla_fairseq.streaming import MonotonicPolicy, Policy, Translator


class MonotonicAgent(StreamingAgent):
    """Write when every head of a model with monotonic attention does; its training decides the latency."""

    def build_policy(self, args: Namespace, translator: Translator) -> Policy:
        """Return the policy of the heads.

        Raises:
            ValueError: a model without monotonic attention.
        """
        if translator.model.decoder.monotonic is None:
            raise ValueError("this model has no monotonic attention: use another agent, such as WaitKAgent")
        return MonotonicPolicy()
