"""The text decoder as a step: a token of each hypothesis in, the scores of the next tokens out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.attention import CrossSite, SelfSite, attend_self
from mla_fairseq.edge.monotonic import MonotonicSite
from mla_fairseq.edge.reader import CROSS
from mla_fairseq.edge.softmax import BufferedSoftmax
from mla_fairseq.edge.step import Step, named, number, part, prefixed
from mla_fairseq.models.decoder_steps import StepDecoder
from mla_fairseq.models.decoding import fresh_entry, step_layouts
from mla_fairseq.models.layers import DecoderLayer

HEADS = "heads"  # prefix of the positions of monotonic heads, those of each hypothesis
OWN = "own"  # prefix of the memories of self-attention, one for each hypothesis


class DecoderStep(Step):
    """Decode one token of each hypothesis.

    Data: ``tokens`` (B,); ``read`` (1,) and ``cross.I.*``, the state of ``ReaderStep``, which all hypotheses share.
    Result: ``scores`` (B, V), logits. State: ``written`` (1,), the tokens so far, and ``own.I.*`` of layer I.

    Monotonic heads may need more source states than were read. So with them there are also: data ``ended`` (1,), 1 once
    ``read`` are all states of a speech that has ended; results ``seen`` (B,), how many states the heads have read, and
    ``waiting`` (B,), 1 where they need more. If one waits and the speech has not ended, the caller keeps the state from
    before the call, and calls again after reading more. State of the heads: ``heads.I.step``.

    Args:
        decoder: of a simultaneous model.
        sites: cross-attention of its layers.
        memories: the fresh state of ``ReaderStep``.
        capacity: tokens of the longest target; of effect for softmax attention.
        beam: hypotheses (B).
    """

    def __init__(
        self,
        decoder: StepDecoder,
        sites: Sequence[CrossSite | MonotonicSite],
        memories: Tensors,
        capacity: int,
        beam: int = 1,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        layers = [layer for layer in decoder.layers if isinstance(layer, DecoderLayer)]
        own = [SelfSite(layer.self_attn, capacity, 1, beam, hypotheses=True) for layer in layers]
        self.cross, self.own = nn.ModuleList(sites), nn.ModuleList(own)
        self.layers = list(zip(layers, own, sites, strict=True))
        self.monotonic = decoder.monotonic is not None
        self.data = {"tokens": torch.full((beam,), decoder.padding_idx + 1)} | memories
        if self.monotonic:
            self.data["ended"] = number()
        elif not any(isinstance(site.mechanism, BufferedSoftmax) for site in sites):
            del self.data["read"]  # only a buffer needs to know how much of it is filled
        self.fresh = {"written": number()}
        for i, site in enumerate(own):
            self.fresh |= prefixed(f"{OWN}.{i}", site.fresh)
            self.rings += named(f"{OWN}.{i}", site.rings)
        for i, heads in enumerate(site for site in sites if isinstance(site, MonotonicSite)):
            self.fresh |= prefixed(f"{HEADS}.{i}", heads.start(beam))
        self.results = ("scores", "seen", "waiting") if self.monotonic else ("scores",)
        self.bias = torch.zeros(decoder.output_projection.out_features, dtype=next(decoder.parameters()).dtype)
        rule, one = decoder.length_rule, number(1)
        self.expected = None if rule is None else (rule(one), decoder._source_lengths(one))

    def compute(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        entry = fresh_entry(number(), self.expected) | {
            "position": state["written"],
            "source_position": data.get("read", number()),
        }
        layouts, _ = step_layouts(entry, 1, 1, None)
        new, reports = {"written": state["written"] + 1}, []
        x = self.decoder._embed(data["tokens"].unsqueeze(1), state["written"])[0]
        for i, (layer, own, cross) in enumerate(self.layers):
            x, held = attend_self(layer, own, x, part(f"{OWN}.{i}", state), layouts.target)
            y = layer.block_input(x, layer.encoder_attn_layer_norm)
            memory = part(f"{CROSS}.{i}", data)
            if isinstance(cross, MonotonicSite):
                report = cross.advance(y, memory, part(f"{HEADS}.{i}", state), layouts.source, data["ended"])
                y, new = report.output, new | prefixed(f"{HEADS}.{i}", report.held)
                reports.append(report)
            else:
                y = cross.read(y, memory, layouts.source)
            x = layer.feed_forward(layer.block_output(y, x, layer.encoder_attn_layer_norm))
            new |= prefixed(f"{OWN}.{i}", held)
        x = x if self.decoder.layer_norm is None else self.decoder.layer_norm(x)
        # with a bias the exporter shares the matrix of a tied embedding, and without one it writes a transposed copy
        scores = F.linear(x, self.decoder.output_projection.weight, self.bias)
        results = {"scores": scores} | self.place(state["written"])
        if reports:
            results["seen"] = torch.stack([report.seen for report in reports]).amax(0)
            results["waiting"] = torch.stack([report.waiting for report in reports]).long().amax(0)
        return results, new
