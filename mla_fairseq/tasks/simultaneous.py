"""What ``fairseq-generate`` needs to decode as a simultaneous agent does: greedy search, and limits of each source."""

from __future__ import annotations

from typing import Any

import torch

from mla_fairseq.errors import UserError
from mla_fairseq.streaming.delays import Reads


def check_greedy(args: Any, prefix_size: int = 0) -> None:
    """Check the search options for simultaneous decoding, which emits each token at once and for good.

    Args:
        args: the options of decoding.
        prefix_size: the forced tokens of a multilingual model.

    Raises:
        UserError: a beam, or another search option.
    """
    if (beam := getattr(args, "beam", 1)) != 1:
        raise UserError(f"--beam is not 1 ({beam}): simultaneous decoding cannot revise emitted words, use --beam 1")
    for option in ("sampling", "prefix_size", "unkpen", "diverse_beam_groups"):
        if (getattr(args, option, None) or 0) > (prefix_size if option == "prefix_size" else 0):
            raise UserError(f"--{option.replace('_', '-')} is not supported in simultaneous decoding: remove it")


def recorded_reads(hypothesis: dict[str, Any], prefix_size: int = 0) -> Reads:
    """Return the encoder states that monotonic heads read before each token after the forced ones.

    The decoder stores them as attention.
    """
    reads = hypothesis["attention"][0].long().tolist()[prefix_size:]
    return lambda token: reads[min(token, len(reads) - 1)]


def cut(hypothesis: dict[str, Any], most: int) -> None:
    """End a hypothesis after ``most`` tokens, the limit of the agent; fairseq's limit is that of the longest source.

    The end of sentence gets the score of the token that it replaces.
    """
    tokens, scores = hypothesis["tokens"], hypothesis["positional_scores"]
    if len(tokens) > most + 1:
        hypothesis["tokens"] = torch.cat((tokens[:most], tokens[-1:]))
        hypothesis["positional_scores"] = scores[: most + 1]
        hypothesis["score"] = scores[: most + 1].mean()
