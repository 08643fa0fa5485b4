"""The public names of ``mla_fairseq.streaming``."""

from mla_fairseq.streaming.detectors import Detector, EnergyDetector
from mla_fairseq.streaming.incremental import IncrementalSession
from mla_fairseq.streaming.long import LongSession
from mla_fairseq.streaming.offline import OfflineSession
from mla_fairseq.streaming.offline_policies import (
    AlignAttPolicy,
    AttentionPolicy,
    EDAttPolicy,
    HoldPolicy,
    LocalAgreementPolicy,
    OfflinePolicy,
    OfflineWaitKPolicy,
)
from mla_fairseq.streaming.policies import (
    READ,
    Decision,
    MonotonicPolicy,
    Policy,
    Progress,
    WaitKPolicy,
    WholeSourcePolicy,
)
from mla_fairseq.streaming.search import SearchOptions
from mla_fairseq.streaming.session import Emission, Session
from mla_fairseq.streaming.silero import SileroDetector
from mla_fairseq.streaming.translator import Translator

__all__ = [
    "READ",
    "AlignAttPolicy",
    "AttentionPolicy",
    "Decision",
    "Detector",
    "EDAttPolicy",
    "Emission",
    "EnergyDetector",
    "HoldPolicy",
    "IncrementalSession",
    "LocalAgreementPolicy",
    "LongSession",
    "MonotonicPolicy",
    "OfflinePolicy",
    "OfflineSession",
    "OfflineWaitKPolicy",
    "Policy",
    "Progress",
    "SearchOptions",
    "Session",
    "SileroDetector",
    "Translator",
    "WaitKPolicy",
    "WholeSourcePolicy",
]
