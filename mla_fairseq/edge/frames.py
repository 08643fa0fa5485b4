"""The spectrogram decoder as a step: the frames of one decoder step in, those of the next one out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.attention import CrossSite, SelfSite, attend_self
from mla_fairseq.edge.decoder import OWN
from mla_fairseq.edge.reader import CROSS
from mla_fairseq.edge.softmax import BufferedSoftmax
from mla_fairseq.edge.step import Step, named, number, part, prefixed
from mla_fairseq.models.decoding import fresh_entry, step_layouts
from mla_fairseq.models.layers import DecoderLayer, need_lengths
from mla_fairseq.models.speech_decoder import SpeechDecoder


class FrameStep(Step):
    """Emit the frames of the next decoder step from those of the step before it.

    Data: ``keep`` (layers, 1, units), the factors of the pre-net's outputs, because its dropout is never off; and what
    it needs of the results of ``TextStep``. Result: ``end`` (1,), the probability that the utterance ends here. State:
    ``frame`` (1, n F), the frames of the step, before the post-net; ``written`` (1,), the steps so far; and
    ``own.I.*`` of layer I.

    Args:
        decoder: of text to speech.
        sites: cross-attention of its layers.
        capacity: steps of the longest utterance; of effect for softmax attention only.
    """

    def __init__(self, decoder: SpeechDecoder, sites: Sequence[CrossSite], capacity: int) -> None:
        super().__init__()
        self.decoder = decoder
        prenet: Any = decoder.prenet  # fairseq's, which has no types
        self.prenet = list(prenet[0].layers)
        layers = [layer for layer in decoder.transformer_layers if isinstance(layer, DecoderLayer)]
        own = [SelfSite(layer.self_attn, capacity, hypotheses=True) for layer in layers]
        self.registered = nn.ModuleList([*own, *sites])  # so that their parameters are those of the step
        self.layers = list(zip(layers, own, sites, strict=True))
        weight = decoder.feat_proj.weight
        self.data = {"keep": weight.new_ones(len(self.prenet), 1, prenet[1].in_features)}
        if need_lengths(decoder.transformer_layers):
            self.data["expected"] = number(1)
        if any(isinstance(site.mechanism, BufferedSoftmax) for site in sites):
            self.data["read"] = number(1)
        self.fresh = {"frame": weight.new_zeros(1, decoder.out_dim), "written": number()}
        for i, (_, site, cross) in enumerate(self.layers):
            self.fresh |= prefixed(f"{OWN}.{i}", site.fresh)
            self.rings += named(f"{OWN}.{i}", site.rings)
            self.data |= prefixed(f"{CROSS}.{i}", cross.fresh)
        self.results = ("end",)

    def compute(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        written, expected = state["written"], data.get("expected")
        # the whole source was read in one call, so that its length is not used here
        entry = fresh_entry(written, None if expected is None else (expected, expected))
        layouts, _ = step_layouts(
            entry | {"position": written, "source_position": data.get("read", written)}, 1, 1, None
        )
        new = {"written": written + 1}
        x = self._embed(state["frame"], data["keep"], written)
        for i, (layer, own, cross) in enumerate(self.layers):
            x, held = attend_self(layer, own, x, part(f"{OWN}.{i}", state), layouts.target)
            y = layer.block_input(x, layer.encoder_attn_layer_norm)
            y = cross.read(y, part(f"{CROSS}.{i}", data), layouts.source)
            x = layer.feed_forward(layer.block_output(y, x, layer.encoder_attn_layer_norm))
            new |= prefixed(f"{OWN}.{i}", held)
        x = x if self.decoder.layer_norm is None else self.decoder.layer_norm(x)
        results = {"end": self.decoder.eos_proj(x).sigmoid()[:, 0]} | self.place(written)
        return results, new | {"frame": self.decoder.feat_proj(x)}

    def _embed(self, frame: Tensor, keep: Tensor, written: Tensor) -> Tensor:
        """Return the embedded frames (1, C)."""
        for layer, factor in zip(self.prenet, keep.unbind(), strict=True):
            frame = layer(frame) * factor
        return self.decoder.add_positions(self.decoder.prenet[1](frame).unsqueeze(0), written)[0]
