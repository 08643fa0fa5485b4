"""What both decoders share: the encoder's output, their entry in a state, the layouts of a call, and its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mla_fairseq.attention import AttentionHeads, Causal, Full, Layout, State, View, positions
from mla_fairseq.models.layers import Report, Weights

CAUSAL, FULL = Causal(), Full()

ENTRY = "decoder"
"""Name of a decoder's entry in a state: the positions of the next token and of the next source state, and lengths."""


class Source(NamedTuple):
    """What a decoder needs of the encoder's output.

    Attributes:
        states: encoder states (S, B, C).
        mask: (B, S), true for real states; ``None``: all are real.
        lengths: (B,), the numbers of real states.
    """

    states: Tensor
    mask: Tensor | None
    lengths: Tensor


class Layouts(NamedTuple):
    """The layouts of one decoder call, which every layer gets.

    Attributes:
        target: of self-attention, over the target.
        source: of cross-attention, over the source.
    """

    target: Layout
    source: Layout


def source_of(encoder_out: dict[str, Any]) -> Source:
    """Return the encoder states, their mask and their numbers from fairseq's encoder output."""
    states = encoder_out["encoder_out"][0]
    if encoder_out["encoder_padding_mask"]:
        mask = ~encoder_out["encoder_padding_mask"][0]  # fairseq's mask is true for padding
        return Source(states, mask, mask.sum(1))
    return Source(states, None, torch.full((states.shape[1],), states.shape[0], device=states.device))


def whole_layouts(
    length: int,
    source: Source,
    target_length: Tensor | None,
    source_length: Tensor | None,
    target_mask: Tensor | None,
    view: View = CAUSAL,
    cross_view: View = FULL,
) -> Layouts:
    """Return the layouts of a whole target over a whole source.

    Args:
        length: target tokens T, padding included.
        source: the encoder's output.
        target_length: (B,), what target positions are measured against; ``None``: no mechanism needs it.
        source_length: (B,), what source positions are measured against; ``None``: no mechanism needs it.
        target_mask: (B, T), true for real tokens; ``None``: all are real.
        view: which target token sees which.
        cross_view: which target token sees which encoder state.
    """
    device = source.states.device
    return Layouts(
        Layout.at(
            view, 0, length, query_length=target_length, key_length=target_length, key_mask=target_mask, device=device
        ),
        Layout.at(
            cross_view, 0, length, len(source.states), query_length=target_length, key_length=source_length,
            key_mask=source.mask, device=device,
        ),
    )  # fmt: skip


def fresh_entry(source_lengths: Tensor, expected: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
    """Return a decoder's entry in a fresh state.

    Args:
        source_lengths: (B,), true numbers of encoder states, or any where they are not known.
        expected: target and source lengths, (B,) each, that positions are measured against. They are fixed here, before
            the first key is written, because angles are part of the sums. ``None``: no mechanism needs them.
    """
    zeros = torch.zeros_like(source_lengths)
    entry = {"position": zeros, "source_position": zeros}
    return entry if expected is None else entry | {"target_length": expected[0], "source_length": expected[1]}


def step_layouts(
    entry: dict[str, Tensor], length: int, new: int, source_mask: Tensor | None
) -> tuple[Layouts, dict[str, Tensor]]:
    """Return the layouts of the next tokens of streams, and the decoder's entry after them.

    Args:
        entry: the decoder's entry in the state.
        length: number of tokens.
        new: number of encoder states that the state does not hold yet.
        source_mask: (B, new), true for real ones of these; ``None``: all are real.
    """
    position, read, target = entry["position"], entry["source_position"], entry.get("target_length")
    layouts = Layouts(
        Layout.at(CAUSAL, position, length, query_length=target, key_length=target),
        Layout.at(
            # the state holds only what was read, so all of it is visible
            FULL, position, length, new, read, query_length=target, key_length=entry.get("source_length"),
            key_mask=source_mask,
        ),
    )  # fmt: skip
    return layouts, entry | {"position": position + length, "source_position": read + new}


def run_layers(
    layers: Iterable[nn.Module],
    x: Tensor,
    source: Tensor | None,
    layouts: Layouts,
    state: State | None,
    weights: Mapping[int, Weights],
) -> tuple[Tensor, list[Report]]:
    """Run decoder layers, and return their output (T, B, C) and the report of each layer.

    Args:
        layers: instances of ``DecoderLayer``.
        x: embedded tokens (T, B, C).
        source: encoder states (S, B, C') that the state does not hold yet; ``None``: no new ones.
        layouts: the layouts of this call.
        state: the caller's state; ``None``: the whole target is given.
        weights: functions that compute cross-attention weights, by the index of the layer that reports them.
    """
    reports = []
    for i, layer in enumerate(layers):
        x, report = layer(x, source, layouts.target, layouts.source, state, weights.get(i))
        reports.append(report)
    return x, reports


def whole_weights(
    attention: AttentionHeads, queries: Tensor, source: Tensor | None, layout: Layout, surrogate: bool = False
) -> Tensor:
    """Return weights (B, H, T, S) of queries (T, B, C) over the source (S, B, C') that the layer is given.

    ``surrogate``: with a surrogate gradient, which reaches features that are zero.
    """
    assert source is not None, "the whole source is given"
    return attention.weights(queries, source, layout, surrogate)


def weights_over(keys: Tensor, mask: Tensor | None = None) -> Weights:
    """Return a function that computes weights (B, H, T, S) over the keys of a whole source.

    Args:
        keys: (B, H, S, d), what ``AttentionHeads.keys`` returned for the source.
        mask: (B, S), true for real ones; ``None``: all are real.
    """

    def weights(attention: AttentionHeads, queries: Tensor, source: Tensor | None, layout: Layout) -> Tensor:
        places = positions(0, keys.shape[2], keys.device)  # the layout has only the places of new keys
        return attention.weights_from_keys(queries, keys, replace(layout, keys=places, key_mask=mask))

    return weights
