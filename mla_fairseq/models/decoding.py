"""What both decoders share: the encoder's output, their entry in a state, the layouts of a call, and its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mla_fairseq.attention import AttentionHeads, Causal, Full, Layout, State, View, positions
from mla_fairseq.models.layers import Weights

CAUSAL, FULL = Causal(), Full()

OWN = "decoder"
"""A decoder's entry in a state: the positions of the next token and of the next source state, and the lengths."""


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
    """The layouts of one decoder call; every layer gets the same ones.

    Attributes:
        own: self-attention, over the target.
        cross: cross-attention, over the source.
    """

    own: Layout
    cross: Layout


def source_of(encoder_out: dict) -> Source:
    """Return the encoder states, their mask and their numbers from fairseq's encoder output."""
    states = encoder_out["encoder_out"][0]
    if encoder_out["encoder_padding_mask"]:
        mask = ~encoder_out["encoder_padding_mask"][0]
        return Source(states, mask, mask.sum(1))
    return Source(states, None, torch.full((states.shape[1],), states.shape[0], device=states.device))


def whole_layouts(
    length: int,
    source: Source,
    target_length: Tensor | None,
    source_length: Tensor,
    target_mask: Tensor | None,
    view: View = CAUSAL,
    cross_view: View = FULL,
) -> Layouts:
    """Return the layouts of a whole target of ``length`` tokens over a whole source.

    Positions are measured against ``target_length`` and ``source_length``, (B,). ``target_mask`` (B, length) is true
    for real tokens; ``None``: all are real.
    """
    device = source.states.device
    return Layouts(
        Layout.whole(
            view, length, query_length=target_length, key_length=target_length, key_mask=target_mask, device=device
        ),
        Layout.whole(
            cross_view, length, len(source.states), query_length=target_length, key_length=source_length,
            key_mask=source.mask, device=device,
        ),
    )  # fmt: skip


def fresh_entry(source_lengths: Tensor, expected: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
    """Return a decoder's entry in the state of fresh streams.

    ``expected`` are the target and source lengths (B,) that positions are measured against; they are fixed before the
    first key is written, because angles are part of the sums.
    """
    zeros = torch.zeros_like(source_lengths)
    entry = {"position": zeros, "source_position": zeros}
    return entry if expected is None else entry | {"target_length": expected[0], "source_length": expected[1]}


def step_layouts(
    entry: dict[str, Tensor], length: int, new: int, source_mask: Tensor | None
) -> tuple[Layouts, dict[str, Tensor]]:
    """Return the layouts of the next ``length`` tokens and ``new`` source states, and the entry after them."""
    position, read, target = entry["position"], entry["source_position"], entry.get("target_length")
    layouts = Layouts(
        Layout.at(CAUSAL, position, length, query_length=target, key_length=target),
        Layout.at(
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
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Run decoder layers over embedded tokens (T, B, C), and return their output and what each layer reports.

    ``source`` (S, B, C') are the encoder states that are new; ``weights`` says how a layer computes weights, by index.
    """
    notes = []
    for i, layer in enumerate(layers):
        x, note = layer(x, source, layouts.own, layouts.cross, state, weights.get(i))
        notes.append(note)
    return x, notes


def whole_weights(attention: AttentionHeads, queries: Tensor, source: Tensor | None, layout: Layout) -> Tensor:
    """Return weights (B, H, T, S) of queries over the source that the layer is given."""
    return attention.weights(queries, source, layout)


def surrogate_weights(attention: AttentionHeads, queries: Tensor, source: Tensor | None, layout: Layout) -> Tensor:
    """Return weights (B, H, T, S) whose gradient revives features that are zero."""
    return attention.weights(queries, source, layout, surrogate=True)


def weights_over(keys: Tensor, mask: Tensor | None = None) -> Weights:
    """Return a function for weights over ``keys`` (B, H, S, d) of the whole source, real ones (B, S)."""

    def weights(attention: AttentionHeads, queries: Tensor, source: Tensor | None, layout: Layout) -> Tensor:
        places = positions(0, keys.shape[2], keys.device)
        return attention.weights_from_keys(queries, keys, replace(layout, keys=places, key_mask=mask))

    return weights
