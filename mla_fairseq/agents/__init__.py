"""Agents for SimulEval 1.1, used as ``simuleval --agent-class mla_fairseq.agents.WaitKAgent``."""

from mla_fairseq.agents.agent import StreamingAgent
from mla_fairseq.agents.monotonic import MonotonicAgent
from mla_fairseq.agents.offline import AlignAttAgent, EDAttAgent, HoldAgent, LocalAgreementAgent, OfflineWaitKAgent
from mla_fairseq.agents.wait_k import WaitKAgent

__all__ = [
    "AlignAttAgent",
    "EDAttAgent",
    "HoldAgent",
    "LocalAgreementAgent",
    "MonotonicAgent",
    "OfflineWaitKAgent",
    "StreamingAgent",
    "WaitKAgent",
]
