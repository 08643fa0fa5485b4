"""The SimulEval agent of models with monotonic attention."""

from __future__ import annotations

from argparse import Namespace

from mla_fairseq.agents.agent import StreamingAgent
from mla_fairseq.streaming import MonotonicPolicy, Policy, Translator


class MonotonicAgent(StreamingAgent):
    """WRITE when all heads of a model with monotonic attention do; the training of the model sets the latency."""

    def build_policy(self, args: Namespace, translator: Translator) -> Policy:
        """Return the policy that lets the heads decide.

        Raises:
            ValueError: the model has no monotonic attention.
        """
        if not translator.monotonic:
            raise ValueError("this model has no monotonic attention: use another agent, such as WaitKAgent")
        return MonotonicPolicy()
