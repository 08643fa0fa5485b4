"""The text encoder as a step: the symbols of a sentence in, the memories of all decoder layers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mla_fairseq.attention import Full, Layout
from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.attention import CrossSite, SelfSite, attend_self
from mla_fairseq.edge.convolution import with_products
from mla_fairseq.edge.reader import CROSS
from mla_fairseq.edge.step import Step, prefixed
from mla_fairseq.models.layers import EncoderLayer
from mla_fairseq.models.length_options import source_lengths
from mla_fairseq.models.tts_transformer_mla import TTSTransformerMLAModel


class TextStep(Step):
    """Encode a sentence, and write it into the memories of cross-attention.

    Data: ``tokens`` (1, N), padded on the right, and ``speaker`` (1, 1) in a model that has more than one. Results:
    ``expected`` (1,), the decoder steps that the model expects, 0 if it expects none; ``read`` (1,), the symbols of the
    sentence; and ``cross.I.*`` of layer I. There is no state: a sentence is one call.

    Args:
        model: of text to speech.
        sites: cross-attention of its decoder's layers.
        symbols: largest number of symbols of a sentence (N).

    Raises:
        ValueError: no length is known, and a mechanism needs one.
    """

    def __init__(self, model: TTSTransformerMLAModel, sites: Sequence[CrossSite], symbols: int) -> None:
        super().__init__()
        self.encoder, self.rule = with_products(model.encoder), with_products(model.decoder.length_rule)
        layers = [layer for layer in self.encoder.transformer_layers if isinstance(layer, EncoderLayer)]
        own = [SelfSite(layer.self_attn, 0, symbols) for layer in layers]
        self.registered = nn.ModuleList([*own, *sites])  # so that their parameters are those of the step
        self.layers, self.sites = list(zip(layers, own, strict=True)), sites
        self.data = {"tokens": torch.full((1, symbols), self.encoder.padding_idx + 1)}
        if self.encoder.embed_speaker is not None:
            self.data["speaker"] = torch.zeros(1, 1, dtype=torch.long)
        self.fresh: Tensors = {}
        memories = [name for i, site in enumerate(sites) for name in prefixed(f"{CROSS}.{i}", site.fresh)]
        self.results = ("expected", "read", *memories)
        states = next(model.parameters()).new_zeros(1, 1, self.encoder.prenet_proj.out_features)
        # a rule without a length is an error only if a mechanism needs one
        self.expects = model.decoder.expect_length({"encoder_out": [states], "encoder_padding_mask": []}) is not None

    def compute(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        tokens = data["tokens"]
        real = tokens.ne(self.encoder.padding_idx)
        states, lengths = self._states(tokens, real, data.get("speaker")), real.sum(1)
        expected = self.rule(lengths, self.rule.predict(states, real)) if self.expects else torch.zeros_like(lengths)
        key_length = source_lengths(self.rule.options, lengths)
        layout = Layout.at(Full(), 0, 1, tokens.shape[1], key_length=key_length, key_mask=real)
        results = {"expected": expected, "read": lengths}
        for i, site in enumerate(self.sites):
            results |= prefixed(f"{CROSS}.{i}", site.write(states[:, 0], {}, layout))
        return results, {}

    def _states(self, tokens: Tensor, real: Tensor, speaker: Tensor | None) -> Tensor:
        """Return encoder states (N, 1, C)."""
        x, layout = self.encoder._embed(tokens, real)[:, 0], self.encoder.layout(real, real)
        for layer, site in self.layers:
            x = layer.feed_forward(attend_self(layer, site, x, {}, layout)[0])
        return self.encoder._finish(x.unsqueeze(1), speaker)
