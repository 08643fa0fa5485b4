#!/usr/bin/env python3
"""Write the table of all attention mechanisms from the code: states are measured, papers taken from docstrings."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import torch

from mla_fairseq.attention import Causal, Layout, Mechanism, attention_entry, available_attention, build_attention
from mla_fairseq.files import write_text

HEAD = 64
INTRODUCTION = f"""# Attention mechanisms

What `--attn-type` knows, for a head of size {HEAD}.

* *State*: bytes that one head carries for each stream; two numbers are after 10 tokens and after 1000.
* *Cost*: multiplications to write one new token and read once, after 1000 tokens, feature maps included, projections
  excluded. A state that fades is multiplied by its gates too.
* *Lengths*: whether positions are measured against an expected length. A simultaneous model has to fix it
  (`--target-length fixed`).
* *Streams*: whether decoding step by step equals the whole sequence at once, tried with 20 tokens.
* *Sites*: where it can be used. "Chunked encoder" means one with `--encoder-chunk-size`.

"""
END = """
Made by `python scripts/describe_mechanisms.py`; a test holds it to the code.
"""


def paper(name: str) -> str:
    """Return the first sentence of its docstring, the paper as a link."""
    text = " ".join((attention_entry(name).build.__doc__ or "").split()).rstrip(".")
    text = text.partition(". ")[0].partition("; ")[0]
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def carried(mechanism: Mechanism, tokens: int) -> int:
    """Return the bytes of the state of one head and stream after so many tokens."""
    expected = torch.tensor([2000])
    state: dict[str, torch.Tensor] = {}
    for start in range(0, tokens, 10):
        x = torch.rand(1, 1, 10, HEAD)
        layout = Layout.at(Causal(), start, 10, query_length=expected, key_length=expected)
        state = mechanism.advance(state, x, x, x, layout)[1]
    return sum(tensor.nbytes for tensor in state.values())


def cost(mechanism: Mechanism, tokens: int) -> str:
    """Return the multiplications of one more token, from the sizes of what is multiplied."""
    if not mechanism.constant_state:
        return f"{2 * tokens * HEAD:,}"
    passes = 3 if mechanism.in_order else 2  # written, read and, where it fades, multiplied
    state = carried(mechanism, 10) // 4
    learned = sum(weight.numel() for weight in mechanism.parameters() if weight.dim() == 2)
    drawn = sum(buffer.numel() for buffer in mechanism.buffers() if buffer.dim() == 2)  # for queries and for keys
    return f"{passes * state + learned + 2 * drawn:,}"


def streams(mechanism: Mechanism, few: int, many: int) -> str:
    """Return whether step by step equals all at once, and whether the state grows."""
    x, length = torch.rand(1, 1, 20, HEAD), torch.tensor([20])
    whole = mechanism.parallel(x, x, x, Layout.whole(Causal(), 20))
    state, steps = {}, []
    for i, token in enumerate(x.split(1, dim=2)):
        layout = Layout.at(Causal(), i, query_length=length, key_length=length)
        output, state = mechanism.advance(state, token, token, token, layout)
        steps.append(output)
    if not torch.allclose(torch.cat(steps, dim=2), whole, atol=1e-4):
        return "no"
    return "yes" if few == many else "yes, the state grows"


def row(name: str) -> str:
    mechanism = build_attention(name, HEAD)
    few, many = carried(mechanism, 10), carried(mechanism, 1000)
    state = f"{few / 1000:.0f} KB" if few == many else f"{few / 1000:.0f} KB, {many / 1000:.0f} KB"
    sites = "decoder, chunked encoder" if mechanism.in_order else "encoder, decoder, cross"
    learned = sum(parameter.numel() for parameter in mechanism.parameters())
    lengths = "yes" if mechanism.needs_lengths else "no"
    cells = [f"`{name}`", paper(name), state, cost(mechanism, 1000), f"{learned:,}", lengths]
    return "| " + " | ".join([*cells, streams(mechanism, few, many), sites]) + " |"


def table() -> str:
    """Return the whole document."""
    head = "| name | what it is | state | cost | parameters | lengths | streams | sites |\n"
    head += "|---|---|---:|---:|---:|---|---|---|\n"
    return INTRODUCTION + head + "\n".join(row(name) for name in available_attention()) + "\n" + END


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/mechanisms.md"), help="file to write")
    write_text(parser.parse_args().output, table())


if __name__ == "__main__":
    main()
