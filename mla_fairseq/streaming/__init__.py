"""Simultaneous translation of streams: samples go in as they come, whole words come out. Knows no evaluation tool."""

from mla_fairseq.streaming.offline import OfflineSession
from mla_fairseq.streaming.offline_policies import (
    AlignAttPolicy,
    EDAttPolicy,
    HoldPolicy,
    LocalAgreementPolicy,
    OfflinePolicy,
    OfflineWaitKPolicy,
)
from mla_fairseq.streaming.policies import MonotonicPolicy, Policy, Progress, WaitKPolicy, WholeSourcePolicy
from mla_fairseq.streaming.session import Session, Write
from mla_fairseq.streaming.translator import Translator

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
