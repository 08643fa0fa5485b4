"""The chunked speech encoder as a step: a window of frames in, a chunk of states out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mla_fairseq.attention import Blocks, Layout
from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.layers import rows_of
from mla_fairseq.edge.runtime.names import UNKNOWN
from mla_fairseq.edge.step import Step, named, number, part, prefixed
from mla_fairseq.edge.subsample import Subsample
from mla_fairseq.models.encoder import SpeechEncoder


class EncoderStep(Step):
    """Encode the next window of frames to the next chunk of states.

    Data: ``frames`` (1, window, F), and ``length`` (1,), the frames of the whole speech, ``UNKNOWN`` until it ends.
    Frames after it are not used. Results: ``states`` (chunk, C) and, with a boundary output, ``boundary`` (chunk, 2),
    the logits of the states ``boundary.ahead`` before these.

    A stream begins ``lead`` states before its first one: ``padding`` frames that are not used come before the speech,
    so that each call has the ``ahead`` frames that its last state needs.

    Args:
        encoder: a chunked encoder.
        features: features of a frame (F).
        capacity: states of the longest speech; of effect for softmax attention without a window.

    Raises:
        ValueError: a full-context encoder, a mechanism whose state grows, or relative positions.
    """

    def __init__(self, encoder: SpeechEncoder, features: int, capacity: int) -> None:
        super().__init__()
        if not isinstance(view := encoder.view, Blocks):
            raise ValueError(
                "the encoder reads the whole speech (full context), so it cannot run step by step: train a model with "
                "--encoder-chunk-size, such as s2t_transformer_simul_mla"
            )
        self.encoder, self.view, self.chunk = encoder, view, view.size
        self.subsample = Subsample(encoder.subsample, self.chunk, features)
        self.window, self.ahead, self.lead = (getattr(self.subsample, name) for name in ("window", "ahead", "lead"))
        self.frames_per_state, self.channels = self.window // self.chunk, encoder.channels
        self.padding = self.lead * self.window // self.chunk - self.ahead
        before = -(-capacity // self.chunk) * self.chunk if view.left < 0 else view.left * self.chunk
        self.layers = [rows_of(layer, before, self.chunk) for layer in encoder.layers]
        self.registered = nn.ModuleList(self.layers)  # so that their parameters are those of the step
        dtype = next(encoder.parameters()).dtype
        self.data = {"frames": torch.zeros(1, self.window, features, dtype=dtype), "length": number(UNKNOWN)}
        self.fresh = {"position": number()} | self.subsample.fresh
        for i, layer in enumerate(self.layers):
            self.fresh |= prefixed(f"layer.{i}", layer.fresh)
            self.rings += named(f"layer.{i}", layer.site.rings)
        self.results = ("states",)
        if encoder.boundary is not None:
            held = encoder.boundary.back + encoder.boundary.ahead
            self.fresh["boundary.states"] = torch.zeros(held, encoder.channels, dtype=dtype)
            self.results = ("states", "boundary")
        self.expected = encoder._expected(number(1))

    def compute(self, data: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensors, Tensors]:
        first = state["position"] - self.lead
        x, real, new = self.subsample(data["frames"][0], data["length"], first, state)
        x = self.encoder._embed(x.unsqueeze(1), first)[:, 0]
        layout = Layout.at(
            self.view, first, self.chunk, query_length=self.expected, key_length=self.expected,
            key_mask=real.unsqueeze(0),
        )  # fmt: skip
        for i, layer in enumerate(self.layers):
            x, held = layer(x, part(f"layer.{i}", state), layout, real)
            new |= prefixed(f"layer.{i}", held)
        x = x if self.encoder.layer_norm is None else self.encoder.layer_norm(x)
        # the states before the first one are hidden, and must not take the last slots
        results = {"states": x} | self.place(first.clamp_min(0))
        if (boundary := self.encoder.boundary) is not None:
            known = torch.cat((state["boundary.states"], x * real.to(x.dtype).unsqueeze(1)))
            windows = torch.arange(self.chunk).unsqueeze(1) + torch.arange(boundary.back + 1 + boundary.ahead)
            seen = known.index_select(0, windows.flatten()).reshape(self.chunk, -1)
            results["boundary"], new["boundary.states"] = boundary.linear(seen), known[self.chunk :]
        return results, new | {"position": state["position"] + self.chunk}
