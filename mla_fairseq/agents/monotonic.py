"""Monotonic attention under SimulEval."""

from __future__ import annotations

from argparse import Namespace

from mla_fairseq.agents.agent import StreamingAgent
from mla_fairseq.streaming import MonotonicPolicy, Policy, Translator


class MonotonicAgent(StreamingAgent):
    """Writes when every head of a model with monotonic attention would: how late that is, training decided."""

    def build_policy(self, args: Namespace, translator: Translator) -> Policy:
        """The heads' own.

        Raises:
            ValueError: a model without monotonic attention.
        """
        if translator.model.decoder.monotonic is None:
            raise ValueError("this model has no monotonic attention: take another agent, such as WaitKAgent")
        return MonotonicPolicy()
