"""Align hypotheses with encoder states, for ``--print-alignment``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.data.data_utils import collate_tokens
from torch import Tensor

from mla_fairseq.models.decoder_steps import StepDecoder
from mla_fairseq.models.decoding import source_of

Hypothesis = dict[str, Any]
"""A hypothesis of fairseq's generator."""


@torch.no_grad()
def align(
    models: Sequence[Any], net_input: dict[str, Any], found: list[list[Hypothesis]], dictionary: Dictionary, soft: bool,
    prefix_size: int = 0,
) -> None:  # fmt: skip
    """Add ``alignment`` to hypotheses, from the last layer's cross-attention, averaged over heads and models.

    It is a list as fairseq prints it: of ``(state, token)``, the encoder state (40 ms) with the largest weight for each
    token but the end of sentence; or, if ``soft``, of the weights of all states for each token. fairseq's own code
    expects a source of tokens.

    Args:
        models: the ensemble.
        net_input: of the batch, with what asks for a decoding.
        found: the hypotheses of each sentence, as many for each.
        dictionary: the target dictionary.
        soft: return weights.
        prefix_size: number of first tokens to leave out: tags of languages, which are not printed.
    """
    inputs = {name: value for name, value in net_input.items() if name != "prev_output_tokens"}
    encoded = [model.encoder(**inputs) for model in models]
    lengths = source_of(encoded[0]).lengths.tolist()
    for hypotheses in zip(*found, strict=True):  # the best of every sentence, then the second, ...
        tokens = [hypothesis["tokens"] for hypothesis in hypotheses]
        weights = torch.stack([_weights(*pair, tokens, dictionary) for pair in zip(models, encoded, strict=True)])
        for hypothesis, row, length in zip(hypotheses, weights.mean(0).float().cpu(), lengths, strict=True):
            visible = row[prefix_size : len(hypothesis["tokens"]), :length]
            hypothesis["alignment"] = _soft(visible) if soft else _hard(visible[:-1])  # the last is the end of sentence


def _weights(model: Any, encoder_out: dict[str, Any], tokens: list[Tensor], dictionary: Dictionary) -> Tensor:
    """Return the cross-attention weights (B, T, S) of a model's last layer over whole hypotheses."""
    previous = collate_tokens(tokens, dictionary.pad(), move_eos_to_beginning=True)
    decoder, true = model.decoder, encoder_out["for_decoder"].get("target_lengths")
    # the length of decoding: without it the decoder would take the hypothesis' own for the true one
    expected = decoder.expect_length(*source_of(encoder_out), true)
    last = len(decoder.layers) - 1
    _, extra = decoder(previous, encoder_out, features_only=True, alignment_layer=last, target_lengths=expected)
    return extra["attn"][0]


def check_models(models: Sequence[Any]) -> None:
    """Check that the models can align.

    Raises:
        ValueError: a model of fairseq's, whose speech decoder returns no weights.
    """
    for model in models:
        if not isinstance(getattr(model, "decoder", None), StepDecoder):
            raise ValueError(
                f"--print-alignment is not supported for this model ({type(model).__name__}): load it as one of this "
                "package, as by --model-overrides \"{'_name': 's2t_transformer_mla'}\""
            )


def _hard(weights: Tensor) -> list[tuple[int, int]]:
    """Return the state with the largest of the weights (T, S) of each token, and the token."""
    return [(state, token) for token, state in enumerate(weights.argmax(-1).tolist())]


def _soft(weights: Tensor) -> list[list[str]]:
    """Return the weights (T, S) as fairseq writes them."""
    return [[f"{weight:.6f}" for weight in row] for row in weights.tolist()]
