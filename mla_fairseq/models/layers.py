"""Transformer layers around attention with any mechanism; parameters named as in fairseq."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from fairseq import utils
from torch import Tensor, nn

from mla_fairseq.attention import AttentionHeads, Layout, MonotonicMultiheadAttention, MultiheadAttention, State
from mla_fairseq.models.dropout import Dropout
from mla_fairseq.models.options import build_site
from mla_fairseq.models.simul import build_monotonic

Weights = Callable[[AttentionHeads, Tensor, Tensor | None, Layout], Tensor]
"""A function that returns cross-attention weights (B, H, T, S) from the module, queries, source and layout."""

Report = dict[str, Tensor]
"""What a decoder layer reports of its cross-attention; see ``DecoderLayer.forward``."""


class SinusoidalPositions(nn.Module):
    """fairseq's sinusoidal position embedding without a table, so that positions have no upper bound.

    Args:
        channels: channels of the embedding (C).
        padding_idx: index of the padding symbol, from which fairseq starts to count.
    """

    def __init__(self, channels: int, padding_idx: int) -> None:
        super().__init__()
        self.channels = channels
        self.first = padding_idx + 1  # fairseq counts from padding_idx + 1

    def forward(self, start: int | Tensor, length: int, device: torch.device | None = None) -> Tensor:
        """Return the embedding of positions start .. start + length - 1, counted from 0.

        It is (length, 1, C), or (length, B, C) where ``start`` is (B,), and float32 in a model of any precision.
        """
        half = self.channels // 2
        # computed in every call, because a buffer would be cast with the model: float16 has no odd numbers above 2048
        # rates are 10000^(-i / (half - 1))
        rates = torch.exp(torch.arange(half, dtype=torch.float, device=device) * -(math.log(10000) / (half - 1)))
        start = torch.as_tensor(start, device=device).reshape(1, -1)
        places = (torch.arange(length, device=device).unsqueeze(-1) + start + self.first).float()  # (length, 1 or B)
        angles = places.unsqueeze(-1) * rates
        table = torch.cat((angles.sin(), angles.cos()), dim=-1)
        return nn.functional.pad(table, (0, self.channels - table.shape[-1]))  # an odd C ends with a zero

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in ("weights", "_float_tensor"):  # older versions of fairseq saved these
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)


class TransformerLayer(nn.Module):
    """Common part of encoder and decoder layers: residual blocks, norm before or after, and feed-forward."""

    def __init__(self, args: Namespace, channels: int, inner: int, normalize_before: bool) -> None:
        super().__init__()
        self.normalize_before = normalize_before
        self.dropout_module = Dropout(args.dropout)
        self.activation_dropout_module = Dropout(args.activation_dropout)
        self.activation_fn = utils.get_activation_fn(args.activation_fn)
        self.fc1 = nn.Linear(channels, inner)
        self.fc2 = nn.Linear(inner, channels)
        self.final_layer_norm = nn.LayerNorm(channels)

    def block_input(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Return the input of a residual block, (T, B, C)."""
        return norm(x) if self.normalize_before else x

    def block_output(self, x: Tensor, residual: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Return the output of a residual block, (T, B, C)."""
        x = residual + self.dropout_module(x)
        return x if self.normalize_before else norm(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Apply the feed-forward block to each position, (T, B, C) -> (T, B, C)."""
        hidden = self.activation_fn(self.fc1(self.block_input(x, self.final_layer_norm)))
        return self.block_output(self.fc2(self.activation_dropout_module(hidden)), x, self.final_layer_norm)


class EncoderLayer(TransformerLayer):
    """Self-attention and feed-forward over encoder states (S, B, C).

    Args:
        args: the model's options.
        name: the layer's name in the model, which prefixes the names of its attention in a state.
    """

    def __init__(self, args: Namespace, name: str) -> None:
        channels, heads = args.encoder_embed_dim, args.encoder_attention_heads
        super().__init__(args, channels, args.encoder_ffn_embed_dim, args.encoder_normalize_before)
        self.self_attn = MultiheadAttention(
            channels,
            heads,
            build_site(args, "encoder", channels // heads),
            dropout=Dropout(args.attention_dropout),
            name=f"{name}.self_attn",
        )
        self.self_attn_layer_norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, layout: Layout, state: State | None = None) -> Tensor:
        """Return encoder states (S, B, C) from those of the layer before; with a state, they continue those in it."""
        y = self.block_input(x, self.self_attn_layer_norm)
        y = self.self_attn(y, y, layout, state)
        return self.feed_forward(self.block_output(y, x, self.self_attn_layer_norm))


class DecoderLayer(TransformerLayer):
    """Causal self-attention, cross-attention and feed-forward over target tokens (T, B, C).

    Args:
        args: the model's options.
        name: the layer's name in the model, which prefixes the names of its attention in a state.
    """

    def __init__(self, args: Namespace, name: str) -> None:
        channels, heads = args.decoder_embed_dim, args.decoder_attention_heads
        super().__init__(args, channels, args.decoder_ffn_embed_dim, args.decoder_normalize_before)
        self.self_attn = MultiheadAttention(
            channels,
            heads,
            build_site(args, "decoder", channels // heads),
            dropout=Dropout(args.attention_dropout),
            name=f"{name}.self_attn",
        )
        self.self_attn_layer_norm = nn.LayerNorm(channels)
        self.monotonic = build_monotonic(args)
        cross: dict[str, Any] = {
            "mechanism": build_site(args, "cross", channels // heads),
            "kdim": args.encoder_embed_dim,
            "dropout": Dropout(args.attention_dropout),
            "name": f"{name}.encoder_attn",
        }
        self.encoder_attn: MultiheadAttention | MonotonicMultiheadAttention
        if self.monotonic is None:
            self.encoder_attn = MultiheadAttention(channels, heads, **cross)
        else:
            self.encoder_attn = MonotonicMultiheadAttention(channels, heads, **cross, monotonic=self.monotonic)
            if self.monotonic.soft == "hard_aligned":  # attention to a single state needs no scores
                # torch's distributed training stops at a parameter that has no gradient, unless it is frozen
                for part in (self.encoder_attn.q_proj, self.encoder_attn.k_proj, self.encoder_attn.mechanism):
                    part.requires_grad_(False)
        self.encoder_attn_layer_norm = nn.LayerNorm(channels)

    def forward(
        self,
        x: Tensor,
        source: Tensor | None,
        self_layout: Layout,
        cross_layout: Layout,
        state: State | None = None,
        weights: Weights | None = None,
    ) -> tuple[Tensor, Report]:
        """Return the layer's output (T, B, C), and a report of the cross-attention.

        Args:
            x: tokens (T, B, C). With a state, they continue those in it.
            source: encoder states (S, B, C') that continue those in the state; ``None``: no new ones.
            self_layout: the layout of self-attention.
            cross_layout: the layout of cross-attention.
            state: the caller's state; ``None``: the whole target is given. Monotonic attention must have been fed.
            weights: a function that computes the cross-attention weights.

        The report has ``weights`` (B, H, T, S) if ``weights`` is given. For monotonic attention it has the expected
        ``delays`` (B, H, T) in encoder states or, with a state, ``seen`` (B, H), the encoder states that each head has
        read, and ``wait`` (B,), which streams need more of them.
        """
        # self-attention
        y = self.block_input(x, self.self_attn_layer_norm)
        y = self.self_attn(y, y, self_layout, state)
        x = self.block_output(y, x, self.self_attn_layer_norm)

        # cross-attention
        y = self.block_input(x, self.encoder_attn_layer_norm)
        report = {} if weights is None else {"weights": weights(self.encoder_attn, y, source, cross_layout)}
        if isinstance(self.encoder_attn, MultiheadAttention):
            y = self.encoder_attn(y, source, cross_layout, state)
        elif state is None:
            # training: the expectation over all decisions of the heads
            y, report["delays"] = self.encoder_attn(y, source, cross_layout)
        else:
            # decoding: every head decides now, over the encoder states that it was fed
            y, report["seen"], report["wait"] = self.encoder_attn.advance(y, state, cross_layout)
        x = self.block_output(y, x, self.encoder_attn_layer_norm)
        return self.feed_forward(x), report


def need_lengths(layers: nn.Module) -> bool:
    """Return whether any attention of these decoder layers measures positions against lengths."""
    return any(isinstance(module, AttentionHeads) and module.mechanism.needs_lengths for module in layers.modules())
