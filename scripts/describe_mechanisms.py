#!/usr/bin/env python3
"""Writes the table of all attention mechanisms, from the code: states are made and measured, papers read."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch
from torch import nn

from mla_fairseq.attention import Causal, Lengths, attention_entry, available_attention, build_attention
from mla_fairseq.files import write_text

HEAD = 64
INTRODUCTION = f"""# Attention mechanisms

What `--attn-type` knows, for a head of size {HEAD}.

* *State*: what one head carries for each stream; two numbers are after 10 tokens and after 1000.
* *Cost*: multiplications to write a new token and to read once, after 1000 tokens, with what maps queries and keys to
  features, without the projections that make them.
* *Lengths*: whether positions are measured against an expected length. A model that streams has to fix it
  (`--target-length fixed`).
* *Sites*: where it may stand. "Chunked encoder" means one with `--encoder-chunk-size`.

* *Streams*: that a state carried from token to token gives what the whole sequence gives, tried with 20 tokens.

"""
END = """
Made by `python scripts/describe_mechanisms.py`; a test holds it to the code.
"""


def paper(name: str) -> str:
    """The first sentence of what its registration says, the paper as a link."""
    text = " ".join((attention_entry(name).build.__doc__ or "").split()).rstrip(".")
    text = text.partition(". ")[0].partition("; ")[0]
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def carried(mechanism: nn.Module, tokens: int) -> int:
    """Bytes of the state of one head and stream after so many tokens."""
    expected = torch.tensor([2000])
    state: dict[str, torch.Tensor] = {}
    for _ in range(0, tokens, 10):
        x = torch.rand(1, 1, 10, HEAD)
        state = mechanism.advance(state, x, x, x, Causal(), None, Lengths(expected, expected))[1]
    return sum(tensor.nbytes for tensor in state.values())


def cost(mechanism: nn.Module, tokens: int) -> str:
    """Multiplications of one more token, as the size of what is multiplied says."""
    if not hasattr(mechanism, "features"):
        return f"{2 * tokens * HEAD:,}"
    x = torch.rand(1, 1, 1, HEAD)
    features = getattr(mechanism.features, "query", mechanism.features)(x).shape[-1]
    vectors = getattr(getattr(mechanism, "positions", None), "size", 1)
    learned = sum(weight.numel() for weight in mechanism.parameters() if weight.dim() == 2)
    drawn = sum(buffer.numel() for buffer in mechanism.buffers() if buffer.dim() == 2)  # for queries and for keys
    return f"{2 * features * vectors * (HEAD + 1) + learned + 2 * drawn:,}"


def streams(mechanism: nn.Module, few: int, many: int) -> str:
    """Whether step by step is all at once, and what happens to the state."""
    x, lengths = torch.rand(1, 1, 20, HEAD), Lengths(torch.tensor([20]), torch.tensor([20]))
    whole = mechanism.parallel(x, x, x, Causal(), None, lengths)
    state, steps = {}, []
    for token in x.split(1, dim=2):
        output, state = mechanism.advance(state, token, token, token, Causal(), None, lengths)
        steps.append(output)
    if not torch.allclose(torch.cat(steps, dim=2), whole, atol=1e-4):
        return "no"
    return "yes" if few == many else "yes, the state grows"


def row(name: str) -> str:
    mechanism = build_attention(name, HEAD)
    few, many = carried(mechanism, 10), carried(mechanism, 1000)
    state = f"{few / 1000:.0f} KB" if few == many else f"{few / 1000:.0f} KB, {many / 1000:.0f} KB"
    in_order = getattr(mechanism, "in_order", False)
    sites = "decoder, chunked encoder" if in_order else "encoder, decoder, cross"
    learned = sum(parameter.numel() for parameter in mechanism.parameters())
    lengths = "yes" if mechanism.needs_lengths else "no"
    cells = [f"`{name}`", paper(name), state, cost(mechanism, 1000), f"{learned:,}", lengths]
    return "| " + " | ".join([*cells, streams(mechanism, few, many), sites]) + " |"


def table() -> str:
    """The whole document."""
    head = "| name | what it is | state | cost | parameters | lengths | streams | sites |\n"
    head += "|---|---|---:|---:|---:|---|---|---|\n"
    return INTRODUCTION + head + "\n".join(row(name) for name in available_attention()) + "\n" + END


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/mechanisms.md"), help="file to write")
    write_text(parser.parse_args().output, table())


if __name__ == "__main__":
    main()
