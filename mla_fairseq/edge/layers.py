"""Layers of a chunked encoder as functions of flat tensors: rows of the next states of one stream in, and out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.attention import Layout
from mla_fairseq.attention.base import Tensors
from mla_fairseq.edge.attention import SelfSite, attend_self
from mla_fairseq.models.conformer_layer import ConformerLayer
from mla_fairseq.models.layers import EncoderLayer
from mla_fairseq.models.relative import RelativeSoftmax

HELD = "held"


class TransformerRows(nn.Module):
    """A Transformer layer.

    Args:
        layer: of the model.
        before: states that softmax attention sees besides new ones.
        new: states of a call.

    Attributes:
        fresh: the state of a fresh stream.
    """

    def __init__(self, layer: EncoderLayer, before: int, new: int) -> None:
        super().__init__()
        self.layer, self.site = layer, SelfSite(layer.self_attn, before, new)
        self.fresh = self.site.fresh

    def forward(self, x: Tensor, state: Tensors, layout: Layout, real: Tensor) -> tuple[Tensor, Tensors]:
        """Return rows (new, C) of rows (new, C), ``real`` (new,) says which exist, and the next state."""
        x, state = attend_self(self.layer, self.site, x, state, layout)
        return self.layer.feed_forward(x), state


class ConformerRows(nn.Module):
    """A Conformer layer; arguments and attributes as in ``TransformerRows``.

    Raises:
        ValueError: relative positions.
    """

    def __init__(self, layer: ConformerLayer, before: int, new: int) -> None:
        super().__init__()
        if isinstance(layer.self_attn.mechanism, RelativeSoftmax):
            raise ValueError("--pos-enc-type rel_pos cannot be exported: train with --pos-enc-type abs")
        self.layer, self.site, self.module = layer, SelfSite(layer.self_attn, before, new), layer.conv_module
        self.inner, self.outer = pointwise(self.module.pointwise_conv1), pointwise(self.module.pointwise_conv2)
        held = self.inner.weight.new_zeros(self.module.past, self.inner.in_features)
        self.fresh: Tensors = self.site.fresh | ({HELD: held} if len(held) else {})

    def forward(self, x: Tensor, state: Tensors, layout: Layout, real: Tensor) -> tuple[Tensor, Tensors]:
        """Return rows as ``TransformerRows`` does."""
        x = x + 0.5 * self.layer.ffn1(x)
        held = {name: tensor for name, tensor in state.items() if name != HELD}
        y, new = self.site(self.layer.self_attn_layer_norm(x), held, layout)
        x = x + y
        y, known = self._convolved(x, state.get(HELD), real)
        x = x + y
        x = x + 0.5 * self.layer.ffn2(x)
        return x if self.layer.final_layer_norm is None else self.layer.final_layer_norm(x), new | known

    def _convolved(self, x: Tensor, held: Tensor | None, real: Tensor) -> tuple[Tensor, Tensors]:
        """Return the output (new, C) of the convolution module, and the rows to hold."""
        y = F.glu(self.inner(self.module.layer_norm(x)), dim=-1) * real.to(x.dtype).unsqueeze(1)
        known = y if held is None else torch.cat((held, y))
        # rows of zeros, because no window passes the end of its chunk
        image = F.pad(known, (0, 0, 0, self.module.past)).transpose(0, 1).unsqueeze(0)
        y = F.conv1d(image, self.module.depthwise_conv.weight, groups=len(image[0]))[0].transpose(0, 1)
        y = self.outer(F.silu(self.module.normalized(y.unsqueeze(1))[:, 0]))
        return y, {} if held is None else {HELD: known[len(x) :]}


def pointwise(conv: nn.Conv1d) -> nn.Linear:
    """Return a convolution of one row as a product, which quantisers see."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=False)
    linear.weight = nn.Parameter(conv.weight.detach().squeeze(-1), requires_grad=False)
    return linear


def rows_of(layer: nn.Module, before: int, new: int) -> TransformerRows | ConformerRows:
    """Return an encoder's layer as a function of rows; arguments and errors as in its class."""
    if isinstance(layer, ConformerLayer):
        return ConformerRows(layer, before, new)
    assert isinstance(layer, EncoderLayer)
    return TransformerRows(layer, before, new)
