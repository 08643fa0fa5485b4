"""Simultaneous translation of streams: samples go in as they come, whole words come out. Knows no evaluation tool."""

from mla_fairseq.engine.offline import OfflineSession
from mla_fairseq.engine.offline_policies import (
    AlignAttPolicy,
    EDAttPolicy,
    HoldPolicy,
    LocalAgreementPolicy,
    OfflinePolicy,
    OfflineWaitKPolicy,
)
from mla_fairseq.engine.policies import MonotonicPolicy, Policy, Progress, WaitKPolicy, WholeSourcePolicy
from mla_fairseq.engine.session import Session, Write
from mla_fairseq.engine.translator import Translator

__all__ = [
    "AlignAttPolicy",
    "EDAttPolicy",
    "HoldPolicy",
    "LocalAgreementPolicy",
    "MonotonicPolicy",
    "OfflinePolicy",
    "OfflineSession",
    "OfflineWaitKPolicy",
    "Policy",
    "Progress",
    "Session",
    "Translator",
    "WaitKPolicy",
    "WholeSourcePolicy",
    "Write",
]
