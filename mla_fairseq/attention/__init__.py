"""Attention as a replaceable component: mechanisms, views and states. Depends on torch only.

Reading order: ``views.py`` and ``base.py`` (which query sees which key, and what a mechanism is), ``linear.py`` with
``kernels.py`` and ``cosformer.py`` (MLA), ``multihead.py`` (the module around a mechanism).
"""

from mla_fairseq.attention.base import Layout, Mechanism, positions
from mla_fairseq.attention.cosformer import CosFormer
from mla_fairseq.attention.feature_maps import ELUAttention, ExpAttention, Hedgehog, SquaredReLUAttention
from mla_fairseq.attention.gated import GLA, Decay, GatedAttention
from mla_fairseq.attention.leap import LeaPformer
from mla_fairseq.attention.linear import LinearAttention, ReLUAttention
from mla_fairseq.attention.monotonic import Monotonic, chunkwise, expected_alignment, infinite_lookback
from mla_fairseq.attention.monotonic_multihead import MonotonicMultiheadAttention
from mla_fairseq.attention.multihead import AttentionHeads, MultiheadAttention
from mla_fairseq.attention.performer import Performer
from mla_fairseq.attention.registry import attention_entry, available_attention, build_attention, register_attention
from mla_fairseq.attention.softmax import SoftmaxAttention
from mla_fairseq.attention.state import State, fork, nbytes, reorder
from mla_fairseq.attention.views import Blocks, Causal, Full, Prefix, View

__all__ = [
    "GLA", "AttentionHeads", "Blocks", "Causal", "CosFormer", "Decay", "ELUAttention", "ExpAttention", "Full",
    "GatedAttention", "Hedgehog", "Layout", "LeaPformer", "LinearAttention", "Mechanism", "Monotonic",
    "MonotonicMultiheadAttention", "MultiheadAttention", "Performer", "Prefix", "ReLUAttention", "SoftmaxAttention",
    "SquaredReLUAttention", "State", "View", "attention_entry", "available_attention", "build_attention", "chunkwise",
    "expected_alignment", "fork", "infinite_lookback", "nbytes", "positions", "register_attention", "reorder",
]  # fmt: skip
