"""Attention as a replaceable part: mechanisms, views and states. Needs torch and nothing else."""

from mla_fairseq.attention.gated import GatedAttention
from mla_fairseq.attention.hedgehog import HedgehogFeatures
from mla_fairseq.attention.kernels import attend, blocks, causal, full, prefix, quadratic, read, weights, write
from mla_fairseq.attention.leap import LearnedProportions
from mla_fairseq.attention.linear import Lengths, LinearAttention
from mla_fairseq.attention.monotonic import chunkwise, expected_alignment, infinite_lookback
from mla_fairseq.attention.monotonic_multihead import Monotonic, MonotonicMultiheadAttention
from mla_fairseq.attention.multihead import MultiheadAttention
from mla_fairseq.attention.performer import RandomFeatures
from mla_fairseq.attention.positions import CosinePositions
from mla_fairseq.attention.registry import (
    Mechanism,
    attention_entry,
    available_attention,
    build_attention,
    register_attention,
)
from mla_fairseq.attention.softmax import SoftmaxAttention
from mla_fairseq.attention.state import State, fork, nbytes, reorder
from mla_fairseq.attention.views import Blocks, Causal, Full, Prefix, View

__all__ = [
    "Blocks",
    "Causal",
    "CosinePositions",
    "Full",
    "GatedAttention",
    "HedgehogFeatures",
    "LearnedProportions",
    "Lengths",
    "LinearAttention",
    "Mechanism",
    "Monotonic",
    "MonotonicMultiheadAttention",
    "MultiheadAttention",
    "Prefix",
    "RandomFeatures",
    "SoftmaxAttention",
    "State",
    "View",
    "attend",
    "attention_entry",
    "available_attention",
    "blocks",
    "build_attention",
    "causal",
    "chunkwise",
    "expected_alignment",
    "fork",
    "full",
    "infinite_lookback",
    "nbytes",
    "prefix",
    "quadratic",
    "read",
    "register_attention",
    "reorder",
    "weights",
    "write",
]
