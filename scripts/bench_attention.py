#!/usr/bin/env python3
"""Time every linear mechanism against torch's scaled_dot_product_attention (SDPA), side by side in one run.

A ratio is SDPA's time divided by that of the mechanism. ``plain`` is ten lines of torch with ReLU features
(bench_references.py). Before a mechanism is timed, its output is compared with the quadratic oracle. Memory is the peak
of torch's allocator in one forward and backward pass. As in every layer but the first, the layout has its mask already.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import bench_references as references
import benchmark
import torch
from bench_references import FAST, LUCID, Attention
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from tqdm import tqdm

from mla_fairseq.attention import Causal, Full, Layout, Mechanism, available_attention, build_attention, nbytes

VIEWS = {"causal": Causal(), "full": Full()}
ORACLE_LIMIT, TOLERANCE = 2048, 1e-4
SDPA, PLAIN = "SDPA", "plain"
NOT_EXACT = (SDPA, LUCID)  # their weights are not those of ReLU attention


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    linear = [name for name in available_attention() if name != "softmax"]
    names = f"mechanisms: {', '.join(linear)}"
    parser.add_argument("--attn-types", nargs="+", default=linear, choices=linear, metavar="NAME", help=names)
    parser.add_argument(
        "--views", nargs="+", default=list(VIEWS), choices=list(VIEWS), help="views: which query sees which key"
    )
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512, 2048, 8192, 16384], help="lengths")
    parser.add_argument("--batch", type=int, default=1, help="sequences in a batch")
    parser.add_argument("--heads", type=int, default=4, help="number of heads")
    parser.add_argument("--head-size", type=int, default=64, help="size of a head")
    parser.add_argument("--threads", type=int, default=1, help="number of torch threads")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each contestant, of which the median counts")
    parser.add_argument("--turn", type=float, default=0.1, help="length of a turn, in s")
    parser.add_argument("--steps", nargs=2, type=int, default=[10, 10_000], help="tokens before the decoding step")
    parser.add_argument(
        "--references",
        nargs="*",
        default=[],
        choices=[FAST, LUCID],
        help="packages to install for this run and compare",
    )
    benchmark.add_common_args(parser)
    return parser


def draw(args: argparse.Namespace, length: int, gradient: bool = False) -> list[Tensor]:
    """Return queries, keys and values (B, H, T, D)."""
    shape = (args.batch, args.heads, length, args.head_size)
    return [torch.randn(shape, requires_grad=gradient) for _ in range(3)]


def ours(mechanism: Mechanism, view: str) -> Attention:
    """Return a mechanism of the package as a function; its layouts are computed once for each length."""
    layouts: dict[int, Layout] = {}

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length = q.shape[-2]
        if length not in layouts:
            layouts[length] = Layout.whole(VIEWS[view], length)
        return mechanism.parallel(q, k, v, layouts[length])

    return run


def contestants(args: argparse.Namespace, mechanisms: dict[str, Mechanism], view: str) -> dict[str, Attention]:
    """Return all contestants that support a view."""
    runs: dict[str, Attention] = {
        SDPA: lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=view == "causal"),
        PLAIN: references.plain_causal if view == "causal" else references.plain_full,
    }
    if FAST in args.references:
        runs[FAST] = references.fast_transformers(view, args.head_size)
    if LUCID in args.references:
        runs[LUCID] = references.linear_attention_transformer(view)
    for name, mechanism in mechanisms.items():
        if view == "causal" or not mechanism.in_order:
            runs[name] = ours(mechanism, view)
    return runs


@torch.no_grad()
def check(args: argparse.Namespace, name: str, run: Attention, oracle: Mechanism, view: str, length: int) -> None:
    """Compare a contestant with the quadratic form of a mechanism.

    Raises:
        SystemExit: the outputs differ, so the speed would mean nothing.
    """
    q, k, v = draw(args, min(length, ORACLE_LIMIT))
    expected = oracle.weights(q, k, Layout.whole(VIEWS[view], q.shape[-2])) @ v
    error = (run(q, k, v) - expected).abs().max().item()
    if not error <= TOLERANCE:  # not a number is an error too
        raise SystemExit(f"error: {name}, {view}, {length} positions: differs from the oracle by {error:.1e}")


def with_backward(run: Attention, tensors: list[Tensor]) -> Callable[[], None]:
    """Return the forward and backward pass as a function."""

    def both() -> None:
        for tensor in tensors:
            tensor.grad = None
        run(*tensors).sum().backward()

    return both


def time_length(args: argparse.Namespace, runs: dict[str, Attention], length: int) -> dict[str, tuple[float, float]]:
    """Return the seconds of each contestant: forward, and forward with backward."""
    tensors, trained = draw(args, length), draw(args, length, gradient=True)
    with torch.no_grad():
        forward = benchmark.race({n: lambda r=r: r(*tensors) for n, r in runs.items()}, args.repeats, args.turn)
    both = benchmark.race({n: with_backward(r, trained) for n, r in runs.items()}, args.repeats, args.turn)
    return {name: (forward[name], both[name]) for name in runs}


def speed_tables(args: argparse.Namespace, mechanisms: dict[str, Mechanism], view: str) -> list[str]:
    """Return the tables of a view, forward and backward first; a row for each contestant."""
    runs, relu = contestants(args, mechanisms, view), build_attention("relu", args.head_size)
    times = []
    for length in tqdm(args.lengths, desc=view, unit="length"):
        for name in runs:
            if name not in NOT_EXACT:
                check(args, name, runs[name], mechanisms.get(name, relu), view, length)
        times.append(time_length(args, runs, length))
    sections = []
    for i, what in ((1, "forward and backward"), (0, "forward")):
        rows = [["SDPA, ms", *(f"{seconds[SDPA][i] * 1000:.2f}" for seconds in times)]]
        rows += [[n, *(f"{t[SDPA][i] / t[n][i]:.2f}" for t in times)] for n in runs if n != SDPA]
        head = ["", *map(str, args.lengths)]
        sections.append(f"### {view.capitalize()}, {what}: times as fast as SDPA\n\n{benchmark.table(head, rows)}")
    return sections


def memory_table(args: argparse.Namespace, mechanisms: dict[str, Mechanism]) -> str:
    """Return the MB of a causal forward and backward pass."""
    rows = []
    for name, run in tqdm(contestants(args, mechanisms, "causal").items(), desc="memory", unit="contestant"):
        passes = (with_backward(run, draw(args, length, gradient=True)) for length in args.lengths)
        rows.append([name, *(f"{benchmark.peak_memory(both):.1f}" for both in passes)])
    title = "### Causal, forward and backward: MB held at the peak"
    return f"{title}\n\n{benchmark.table(['', *map(str, args.lengths)], rows)}"


@torch.no_grad()
def decoding_table(args: argparse.Namespace, mechanisms: dict[str, Mechanism]) -> str:
    """Return the table of a decoding step after few and after many tokens; contestants take turns."""
    steps: dict[tuple[str, int], Callable[[], object]] = {}
    sizes: dict[tuple[str, int], str] = {}
    for tokens in args.steps:
        for name, mechanism in {"softmax": build_attention("softmax", args.head_size), **mechanisms}.items():
            steps[name, tokens], bytes_held = decoding_step(args, mechanism, tokens)
            sizes[name, tokens] = f"{bytes_held / 1024:.0f}"
        for name, step in reference_steps(args).items():
            steps[name, tokens], sizes[name, tokens] = step, ""
    seconds = benchmark.race(steps, args.repeats, args.turn)
    early, late = args.steps
    rows = []
    for name in dict.fromkeys(name for name, _ in steps):
        times = [f"{seconds[name, tokens] * 1e6:.0f}" for tokens in args.steps]
        ratio = f"{seconds[name, late] / seconds[PLAIN, late]:.2f}"
        rows.append([name, *times, ratio, *(sizes[name, tokens] for tokens in args.steps)])
    head = ["", f"us after {early}", f"us after {late}", "times plain's", f"KB after {early}", f"KB after {late}"]
    return f"### One decoding step\n\n{benchmark.table(head, rows)}"


def decoding_step(args: argparse.Namespace, mechanism: Mechanism, tokens: int) -> tuple[Callable[[], object], int]:
    """Return a step after a number of tokens, and the bytes of the state before it."""
    length = torch.tensor([max(args.steps)])
    lengths = {"query_length": length, "key_length": length}
    state = mechanism.write({}, *draw(args, tokens)[:2], Layout.at(Causal(), 0, tokens, **lengths))
    q, k, v = draw(args, 1)
    layout = Layout.at(Causal(), tokens, **lengths)
    return lambda: mechanism.advance(state, q, k, v, layout), nbytes({"": state})


def reference_steps(args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Return the decoding steps of plain torch and of the reference packages."""
    q, k, v = draw(args, 1)
    state = torch.rand(args.batch, args.heads, args.head_size, args.head_size + 1)
    steps: dict[str, Callable[[], object]] = {PLAIN: lambda: references.plain_step(state, q, k, v)}
    if FAST in args.references:
        step = references.fast_transformers_step(args.head_size)
        steps[FAST] = lambda: step(q, k, v)
    return steps


def main() -> None:
    args = build_parser().parse_args()
    benchmark.check_tree(args)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    benchmark.settle_allocator()
    sections = [f"## Attention (B = {args.batch}, H = {args.heads}, head size {args.head_size}, float32)"]
    with tempfile.TemporaryDirectory() as folder:
        failures = {name: references.install(name, Path(folder)) for name in args.references}
        args.references = [name for name, why in failures.items() if why is None]
        mechanisms = {name: build_attention(name, args.head_size) for name in args.attn_types}
        for view in args.views:
            sections += speed_tables(args, mechanisms, view)
        sections += [memory_table(args, mechanisms), decoding_table(args, mechanisms)]
    sections += [f"Not compared: {why}" for why in failures.values() if why]
    benchmark.publish("\n\n".join([*sections, benchmark.signature()]), args.output)


if __name__ == "__main__":
    main()
