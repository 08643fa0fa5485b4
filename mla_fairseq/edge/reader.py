"""The source side of cross-attention as a step: encoder states in, the memories of all decoder layers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mla_fairseq.attention import Full, Layout
from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.attention import CrossSite
from mla_fairseq.edge.monotonic import MonotonicSite
from mla_fairseq.edge.step import Step, named, number, part, prefixed
from mla_fairseq.models.decoder_steps import StepDecoder

CROSS = "cross"  # prefix of the memories of cross-attention, which the decoder reads


class ReaderStep(Step):
    """Add encoder states to the memories of cross-attention.

    Data: ``states`` (chunk, C), of which the first ``count`` (1,) are read. State: ``read`` (1,), the states read so
    far, and ``cross.I.*`` of layer I. Of those, rings are no inputs of the graph.

    Args:
        decoder: of a simultaneous model.
        sites: cross-attention of its layers.
        chunk: states of a call.
        channels: of the encoder states (C).
    """

    reads_rings = False

    def __init__(
        self, decoder: StepDecoder, sites: Sequence[CrossSite | MonotonicSite], chunk: int, channels: int
    ) -> None:
        super().__init__()
        self.sites, self.registered = sites, nn.ModuleList(sites)
        dtype = next(decoder.parameters()).dtype
        self.chunk = chunk
        self.data = {"states": torch.zeros(chunk, channels, dtype=dtype), "count": number(chunk)}
        self.fresh = {"read": number()}
        for i, site in enumerate(sites):
            self.fresh |= prefixed(f"{CROSS}.{i}", site.fresh)
            self.rings += named(f"{CROSS}.{i}", site.rings)
        self.results = ()
        self.expected = decoder._source_lengths(number(1))

    def compute(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        read = torch.arange(self.chunk) < data["count"]
        layout = Layout.at(
            Full(), 0, 1, self.chunk, state["read"], key_length=self.expected, key_mask=read.unsqueeze(0)
        )
        new = {"read": state["read"] + data["count"]}
        for i, site in enumerate(self.sites):
            written = site.write(data["states"], part(f"{CROSS}.{i}", state), layout)
            new |= prefixed(f"{CROSS}.{i}", written)
        return self.place(state["read"]), new
