"""Simultaneous translation of streams: samples go in as they come, whole words come out. Knows no evaluation tool."""

from mla_fairseq.engine.policies import MonotonicPolicy, Policy, Progress, WaitKPolicy, WholeSourcePolicy
from mla_fairseq.engine.session import Session, Write
from mla_fairseq.engine.translator import Translator

__all__ = [
    "MonotonicPolicy",
    "Policy",
    "Progress",
    "Session",
    "Translator",
    "WaitKPolicy",
    "WholeSourcePolicy",
    "Write",
]
