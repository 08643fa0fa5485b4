"""Transformer layers with stock parameter names, around attention whose mechanism is a part to choose."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable

import torch
from fairseq import utils
from torch import Tensor, nn

from mla_fairseq.attention import AttentionHeads, Layout, MonotonicMultiheadAttention, MultiheadAttention, State
from mla_fairseq.models.dropout import Dropout
from mla_fairseq.models.options import build_site
from mla_fairseq.models.simul import build_monotonic

Weights = Callable[[AttentionHeads, Tensor, Tensor | None, Layout], Tensor]
"""How a layer gets its cross-attention's weights (B, H, T, S): from the module, queries, source and layout."""


class SinusoidalPositions(nn.Module):
    """fairseq's sinusoidal position embedding without a table, so that a position has no upper bound.

    ``forward(start, length, device)`` gives (length, 1, C) for the positions start .. start + length - 1, counted
    from 0; with a start for each stream, (B,), it gives (length, B, C). Angles are float32 in a model of any
    precision: half precision knows no odd place beyond 2048.
    """

    def __init__(self, channels: int, padding_idx: int) -> None:
        super().__init__()
        self.channels = channels
        self.first = padding_idx + 1  # fairseq keeps the places up to the padding symbol's

    def forward(self, start: int | Tensor, length: int, device: torch.device | None = None) -> Tensor:
        half = self.channels // 2
        # made anew, because a buffer would be cast with the model
        rates = torch.exp(torch.arange(half, dtype=torch.float, device=device) * -(math.log(10000) / (half - 1)))
        start = torch.as_tensor(start, device=device).reshape(1, -1)
        places = (torch.arange(length, device=device).unsqueeze(-1) + start + self.first).float()
        angles = places.unsqueeze(-1) * rates
        table = torch.cat((angles.sin(), angles.cos()), dim=-1)
        return nn.functional.pad(table, (0, self.channels - table.shape[-1]))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        for name in ("weights", "_float_tensor"):  # fairseq's module saved these at some time
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *args)


class TransformerLayer(nn.Module):
    """What encoder and decoder layers share: residual blocks with the norm before or after, and the feed-forward."""

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
        """Return the input of a residual block."""
        return norm(x) if self.normalize_before else x

    def block_output(self, x: Tensor, residual: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Return the output of a residual block."""
        x = residual + self.dropout_module(x)
        return x if self.normalize_before else norm(x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Apply the position-wise block, (T, B, C)."""
        hidden = self.activation_fn(self.fc1(self.block_input(x, self.final_layer_norm)))
        return self.block_output(self.fc2(self.activation_dropout_module(hidden)), x, self.final_layer_norm)


class EncoderLayer(TransformerLayer):
    """Self-attention and feed-forward over encoder states (S, B, C)."""

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
        """States (S, B, C) -> states (S, B, C). With a state, they follow those that it holds."""
        y = self.block_input(x, self.self_attn_layer_norm)
        y = self.self_attn(y, y, layout, state)
        return self.feed_forward(self.block_output(y, x, self.self_attn_layer_norm))


class DecoderLayer(TransformerLayer):
    """Causal self-attention, cross-attention and feed-forward over target tokens (T, B, C)."""

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
        self.encoder_attn = (MonotonicMultiheadAttention if self.monotonic else MultiheadAttention)(
            channels,
            heads,
            build_site(args, "cross", channels // heads),
            kdim=args.encoder_embed_dim,
            dropout=Dropout(args.attention_dropout),
            name=f"{name}.encoder_attn",
            **({"monotonic": self.monotonic} if self.monotonic else {}),
        )
        self.encoder_attn_layer_norm = nn.LayerNorm(channels)

    def forward(
        self,
        x: Tensor,
        source: Tensor | None,
        self_layout: Layout,
        cross_layout: Layout,
        state: State | None = None,
        weights: Weights | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens (T, B, C) over source states (S, B, C') -> (T, B, C), and what else is known of the cross-attention.

        With a state, tokens and source follow those that it holds; source ``None``: no new states.

        The dict has ``weights`` (B, H, T, S) if asked for. Of monotonic attention it has the expected ``delays``
        (B, H, T) in encoder states or, with a state, which must have been fed, the states ``seen`` (B, H) and which
        streams ``wait`` for more (B,).
        """
        y = self.block_input(x, self.self_attn_layer_norm)
        y = self.self_attn(y, y, self_layout, state)
        x = self.block_output(y, x, self.self_attn_layer_norm)

        y = self.block_input(x, self.encoder_attn_layer_norm)
        notes = {} if weights is None else {"weights": weights(self.encoder_attn, y, source, cross_layout)}
        if self.monotonic is None:
            y = self.encoder_attn(y, source, cross_layout, state)
        elif state is None:
            y, notes["delays"] = self.encoder_attn(y, source, cross_layout)
        else:
            y, notes["seen"], notes["wait"] = self.encoder_attn.advance(y, state, cross_layout)
        x = self.block_output(y, x, self.encoder_attn_layer_norm)
        return self.feed_forward(x), notes


def need_lengths(layers: nn.ModuleList) -> bool:
    """Return whether any attention of these decoder layers measures positions against lengths."""
    return any(site.mechanism.needs_lengths for layer in layers for site in (layer.self_attn, layer.encoder_attn))
