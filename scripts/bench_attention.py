#!/usr/bin/env python3
"""Times every linear mechanism against torch's scaled_dot_product_attention (SDPA), side by side in one run.

Ratios above 1: so many times faster than SDPA. Before a mechanism is timed, its output is held against the quadratic
oracle. Memory is what torch's allocator holds at the peak of one forward and backward pass. Short sequences find mask
and positions made by the call before, as layers of a model do after the first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import benchmark
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from tqdm import tqdm

from mla_fairseq.attention import Causal, Full, Layout, available_attention, build_attention, nbytes

VIEWS = {"causal": Causal(), "full": Full()}
ORACLE_LIMIT, TOLERANCE = 2048, 1e-4
SDPA = "sdpa"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    linear = [name for name in available_attention() if name != "softmax"]
    parser.add_argument(
        "--attn-types", nargs="+", default=linear, choices=linear, metavar="NAME", help=f"of {', '.join(linear)}"
    )
    parser.add_argument("--views", nargs="+", default=list(VIEWS), choices=list(VIEWS), help="who sees whom")
    parser.add_argument(
        "--lengths", nargs="+", type=int, default=[128, 192, 256, 512, 1024, 2048, 4096, 8192], help="positions"
    )
    parser.add_argument("--batch", type=int, default=1, help="sequences")
    parser.add_argument("--heads", type=int, default=4, help="heads")
    parser.add_argument("--head-size", type=int, default=64, help="features of a head")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each contestant; the median counts")
    parser.add_argument("--turn", type=float, default=0.1, help="seconds of a turn")
    parser.add_argument("--steps", nargs=2, type=int, default=[10, 10_000], help="tokens before the decoding step")
    benchmark.add_common_args(parser)
    return parser


def draw(args: argparse.Namespace, length: int, gradient: bool = False) -> list[Tensor]:
    """Queries, keys and values (B, H, T, D)."""
    shape = (args.batch, args.heads, length, args.head_size)
    return [torch.randn(shape, requires_grad=gradient) for _ in range(3)]


def sdpa(view: str) -> Callable[..., Tensor]:
    return lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=view == "causal")


def linear(name: str, view: str, head_size: int) -> Callable[..., Tensor]:
    mechanism, layouts = build_attention(name, head_size), {}

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        layout = layouts.setdefault(q.shape[-2], Layout.whole(VIEWS[view], q.shape[-2]))
        return mechanism.parallel(q, k, v, layout)

    return run


def contestant(args: argparse.Namespace, name: str, view: str) -> Callable[..., Tensor]:
    return sdpa(view) if name == SDPA else linear(name, view, args.head_size)


def check(args: argparse.Namespace, name: str, view: str, length: int) -> None:
    """Hold a mechanism against the oracle.

    Raises:
        SystemExit: it differs; then its speed means nothing.
    """
    q, k, v = draw(args, min(length, ORACLE_LIMIT))
    mechanism = build_attention(name, args.head_size)
    layout = Layout.whole(VIEWS[view], q.shape[-2])
    with torch.no_grad():
        expected = mechanism.weights(q, k, layout) @ v
        error = (mechanism.parallel(q, k, v, layout) - expected).abs().max().item()
    if error > TOLERANCE:
        raise SystemExit(f"error: {name}, {view}, {length} positions: differs from the oracle by {error:.1e}")


def step(run: Callable[..., Tensor], tensors: list[Tensor]) -> Callable[[], None]:
    """Forward and backward."""

    def both() -> None:
        for tensor in tensors:
            tensor.grad = None
        run(*tensors).sum().backward()

    return both


def time_length(args: argparse.Namespace, view: str, length: int) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each contestant, forward alone and forward with backward."""
    names = [SDPA, *args.attn_types]
    runs = {name: contestant(args, name, view) for name in names}
    tensors, trained = draw(args, length), draw(args, length, gradient=True)
    with torch.no_grad():
        forward = benchmark.race({n: lambda n=n: runs[n](*tensors) for n in names}, args.repeats, args.turn)
    both = benchmark.race({n: step(runs[n], trained) for n in names}, args.repeats, args.turn)
    return forward, both


def speed_tables(args: argparse.Namespace) -> list[str]:
    """One table for each view."""
    head = ["T", "SDPA fwd", "SDPA fwd+bwd"]
    head += [f"{name} {what}" for name in args.attn_types for what in ("fwd", "fwd+bwd")]
    sections = []
    for view in args.views:
        rows = []
        for length in tqdm(args.lengths, desc=view, unit="length"):
            for name in args.attn_types:
                check(args, name, view, length)
            forward, both = time_length(args, view, length)
            cells = [f"{seconds[SDPA] * 1000:.2f} ms" for seconds in (forward, both)]
            cells += [f"{s[SDPA] / s[name]:.2f}" for name in args.attn_types for s in (forward, both)]
            rows.append([str(length), *cells])
        sections.append(f"### {view.capitalize()}: times faster than SDPA\n\n{benchmark.table(head, rows)}")
    return sections


def memory_table(args: argparse.Namespace) -> str:
    names = [SDPA, *args.attn_types]
    rows = []
    for length in tqdm(args.lengths, desc="memory", unit="length"):
        tensors = draw(args, length, gradient=True)
        peaks = [benchmark.peak_memory(step(contestant(args, name, "causal"), tensors)) for name in names]
        rows.append([str(length), *(f"{megabytes:.1f}" for megabytes in peaks)])
    head = ["T", "SDPA", *args.attn_types]
    return f"### Causal, forward and backward: MB held at the peak\n\n{benchmark.table(head, rows)}"


def decoding_table(args: argparse.Namespace) -> str:
    """One decoding step after few and after many tokens; softmax keeps every key."""
    rows = []
    for name in tqdm(["softmax", *args.attn_types], desc="decoding", unit="mechanism"):
        states, steps = zip(*(decoding_step(args, name, tokens) for tokens in args.steps), strict=True)
        with torch.no_grad():
            few, many = benchmark.race(dict(enumerate(steps)), args.repeats, args.turn).values()
        sizes = [f"{nbytes({'': state}) / 1024:.0f}" for state in states]
        rows.append([name, f"{few * 1e6:.0f}", f"{many * 1e6:.0f}", f"{many / few:.2f}", *sizes])
    early, late = args.steps
    head = ["", f"µs after {early}", f"µs after {late}", "times as long", f"KB after {early}", f"KB after {late}"]
    return f"### One decoding step\n\n{benchmark.table(head, rows)}"


def decoding_step(args: argparse.Namespace, name: str, tokens: int) -> tuple[dict[str, Tensor], Callable[[], object]]:
    """The state of a mechanism after so many tokens, and a step upon it."""
    mechanism = build_attention(name, args.head_size)
    length = torch.tensor([max(args.steps)])
    lengths = {"query_length": length, "key_length": length}
    with torch.no_grad():
        state = mechanism.write({}, *draw(args, tokens)[:2], Layout.at(Causal(), 0, tokens, **lengths))
    q, k, v = draw(args, 1)
    layout = Layout.at(Causal(), tokens, **lengths)
    return state, lambda: mechanism.advance(state, q, k, v, layout)


def main() -> None:
    args = build_parser().parse_args()
    benchmark.check_tree(args)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    benchmark.settle_allocator()
    title = f"## Attention (B = {args.batch}, H = {args.heads}, head size {args.head_size}, float32)"
    sections = [title, *speed_tables(args), memory_table(args), decoding_table(args), benchmark.signature()]
    benchmark.publish("\n\n".join(sections), args.output)


if __name__ == "__main__":
    main()
