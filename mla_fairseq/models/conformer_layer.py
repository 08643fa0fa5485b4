"""Conformer layers (Gulati et al. 2020, arXiv 2005.08100) with any mechanism; parameters named as in fairseq.

A layer is half a feed-forward block, self-attention, a convolution module and another half of a feed-forward block.
"""

from __future__ import annotations

from argparse import Namespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mla_fairseq.attention import Blocks, Layout, MultiheadAttention, State
from mla_fairseq.models.dropout import Dropout
from mla_fairseq.models.relative import encoder_mechanism


class FeedForward(nn.Module):
    """A feed-forward block with its norm, without the residual: (S, B, C) -> (S, B, C)."""

    def __init__(self, args: Namespace) -> None:
        super().__init__()
        channels, inner = args.encoder_embed_dim, args.encoder_ffn_embed_dim
        self.layer_norm = nn.LayerNorm(channels)
        self.w_1 = nn.Linear(channels, inner)
        self.w_2 = nn.Linear(inner, channels)
        self.dropout1, self.dropout2 = Dropout(args.activation_dropout), Dropout(args.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (S, B, C) of the block."""
        return self.dropout2(self.w_2(self.dropout1(F.silu(self.w_1(self.layer_norm(x))))))


class RealBatchNorm(nn.BatchNorm1d):
    """Batch normalization over real states only, so that padding does not change the statistics."""

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return normalized states (S, B, C); ``padding`` (S, B, 1) is true for states that do not count."""
        # statistics of a single state are no statistics; evaluation has those of training
        if not self.training or len(x) * x.shape[1] == 1:
            return F.batch_norm(x.flatten(0, 1), self.running_mean, self.running_var, self.weight, self.bias).view_as(x)
        if padding is None:
            return super().forward(x.flatten(0, 1)).view_as(x)
        real = ~padding.squeeze(-1)
        return torch.zeros_like(x).index_put((real,), super().forward(x[real]))


class ConvolutionModule(nn.Module):
    """A gated pointwise, a depthwise and a pointwise convolution over time, with norms, without the residual.

    In a chunked encoder the depthwise convolution sees states before the chunk, which the state keeps, but none after
    its end. So a full-context encoder and a chunked one use the weights in the same way, and may initialise each other.

    Args:
        args: the model's options.
        name: the name under which the state of this module is stored.

    Raises:
        ValueError: a kernel size that is not odd.
    """

    def __init__(self, args: Namespace, name: str) -> None:
        super().__init__()
        channels, size = args.encoder_embed_dim, args.depthwise_conv_kernel_size
        if size < 1 or size % 2 == 0:
            raise ValueError(f"--depthwise-conv-kernel-size must be an odd number above 0, but is {size}")
        self.name, self.past = name, size // 2
        self.layer_norm = nn.LayerNorm(channels)
        self.pointwise_conv1 = nn.Conv1d(channels, 2 * channels, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(channels, channels, size, groups=channels, bias=False)
        batch = args.conformer_conv_norm == "batch"
        self.batch_norm = RealBatchNorm(channels) if batch else None
        self.depthwise_norm = None if batch else nn.LayerNorm(channels)
        self.pointwise_conv2 = nn.Conv1d(channels, channels, 1, bias=False)
        self.dropout = Dropout(args.dropout)

    def forward(self, x: Tensor, layout: Layout, state: State | None = None) -> Tensor:
        """Return the output (S, B, C) for states (S, B, C); with a state, they continue those in it."""
        padding = None
        if (mask := layout.key_mask) is not None:
            padding = layout.once("padding", lambda: ~mask.t().unsqueeze(-1))  # (B, S) -> (S, B, 1)
        # a pointwise convolution is a linear layer: no tensor changes its order in memory
        x = F.glu(F.linear(self.layer_norm(x), self.pointwise_conv1.weight.squeeze(-1)), dim=-1)
        if padding is not None:  # zeros, as beyond the end of a batch: the convolution must not read padding
            x = x.masked_fill(padding, 0)
        x = self._chunked(x, layout.view, state) if isinstance(layout.view, Blocks) else self._depthwise(x.unsqueeze(0))
        x = self.normalized(x, padding)
        return self.dropout(F.linear(F.silu(x), self.pointwise_conv2.weight.squeeze(-1)))

    def normalized(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Return states (S, B, C) after the norm of the depthwise convolution."""
        if self.batch_norm is not None:
            return self.batch_norm(x, padding)
        return x if self.depthwise_norm is None else self.depthwise_norm(x)

    def _chunked(self, x: Tensor, view: Blocks, state: State | None) -> Tensor:
        """Return the depthwise convolution of states (S, B, C), in which no window passes the end of its chunk."""
        entry = {} if state is None else state.get(self.name, {})
        held = entry["held"].transpose(0, 1) if entry else x.new_zeros(self.past, *x.shape[1:])
        seen = torch.cat((held, x))
        if state is not None:  # dim 0 of a state is the stream; a copy, because a slice would keep all of `seen`
            state[self.name] = {"held": seen[len(x) :].transpose(0, 1).clone()}
        size = min(view.size, len(x))
        seen = F.pad(seen, (0, 0, 0, 0, 0, -len(x) % size))  # whole chunks
        chunks = seen.unfold(0, self.past + size, size).permute(0, 3, 1, 2)  # (N, past + size, B, C)
        return self._depthwise(F.pad(chunks, (0, 0, 0, 0, 0, self.past)), 0)[: len(x)]

    def _depthwise(self, x: Tensor, padding: int | None = None) -> Tensor:
        """Return the depthwise convolution (N T', B, C) of N sequences (N, T, B, C).

        ``padding`` zeros are added before and after each, by default as many as keep its length.
        """
        # states as an image of T x B pixels, in torch's channels-last order: Conv1d takes four times as long on a CPU
        image, kernel = x.permute(0, 3, 1, 2), self.depthwise_conv.weight.unsqueeze(-1)
        padding = self.past if padding is None else padding
        y = F.conv2d(image, kernel, padding=(padding, 0), groups=x.shape[-1])
        return y.permute(0, 2, 3, 1).flatten(0, 1)


class ConformerLayer(nn.Module):
    """A Conformer layer over encoder states (S, B, C).

    Args:
        args: the model's options.
        name: the layer's name in the model, which prefixes the names of its parts in a state.

    Raises:
        ValueError: a kernel size that is not odd, or relative positions for a linear mechanism.
    """

    def __init__(self, args: Namespace, name: str) -> None:
        super().__init__()
        channels, heads = args.encoder_embed_dim, args.encoder_attention_heads
        self.ffn1, self.ffn2 = FeedForward(args), FeedForward(args)
        self.self_attn_layer_norm = nn.LayerNorm(channels)
        self.self_attn = MultiheadAttention(
            channels,
            heads,
            encoder_mechanism(args),
            dropout=Dropout(args.attention_dropout),
            name=f"{name}.self_attn",
        )
        self.self_attn_dropout = Dropout(args.dropout)
        self.conv_module = ConvolutionModule(args, f"{name}.conv_module")
        self.final_layer_norm = nn.LayerNorm(channels) if args.conformer_block_norm else None

    def forward(self, x: Tensor, layout: Layout, state: State | None = None) -> Tensor:
        """Return encoder states (S, B, C) from those of the layer before; with a state, they continue those in it."""
        x = torch.add(x, self.ffn1(x), alpha=0.5)
        y = self.self_attn_layer_norm(x)
        x = x + self.self_attn_dropout(self.self_attn(y, y, layout, state))
        x = x + self.conv_module(x, layout, state)
        x = torch.add(x, self.ffn2(x), alpha=0.5)
        return x if self.final_layer_norm is None else self.final_layer_norm(x)
