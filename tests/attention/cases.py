"""The cases of the tests: every registered mechanism and view, and random problems for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mla_fairseq.attention import (
    Blocks,
    Causal,
    Full,
    GatedAttention,
    Layout,
    LinearAttention,
    Mechanism,
    Prefix,
    View,
    available_attention,
    build_attention,
)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "custom_attention" / "quadratic_distance.py"

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest difference of any number, relative to the largest number of the expected tensor (or to 1)."""

CHUNK = 16
"""Chunk of the linear mechanisms under test; the lengths around it are where chunked code goes wrong."""
LENGTHS = (1, CHUNK, CHUNK + 1, 4 * CHUNK + 3)
ALL = slice(None)


def load_example() -> None:
    """Run the example's file, which registers its mechanism."""
    spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


load_example()
BUILT = {name: build_attention(name, 4) for name in available_attention()}
MECHANISMS = tuple(BUILT)
LINEAR = tuple(name for name, built in BUILT.items() if isinstance(built, LinearAttention))
GATED = tuple(name for name, built in BUILT.items() if isinstance(built, GatedAttention))
CONSTANT = tuple(name for name, built in BUILT.items() if built.constant_state)
"""Mechanisms whose state does not grow."""
ANYWHERE = tuple(name for name, built in BUILT.items() if not built.in_order)
"""Mechanisms that work at every site."""

VIEWS: dict[str, Callable[[int], View]] = {
    "full": lambda queries: Full(),
    "causal": lambda queries: Causal(),
    "window": lambda queries: Causal(window=5),
    "blocks": lambda queries: Blocks(6),
    "bigblocks": lambda queries: Blocks(CHUNK + 3),
    "leftblocks": lambda queries: Blocks(6, left=1),
    "prefix": lambda queries: Prefix(3 * torch.arange(queries) // 2),
}
"""Name -> the view for a number of queries. The prefix is empty first, sometimes constant, and ends past the keys."""
LIMITED = frozenset({"window", "leftblocks"})
FORWARD = frozenset({"causal", "blocks", "bigblocks"})


def views_of(name: str) -> list[str]:
    """Return the views that a mechanism can follow."""
    built = BUILT[name]
    known = FORWARD if built.in_order else VIEWS.keys() if built.window else VIEWS.keys() - LIMITED
    return [view for view in VIEWS if view in known]


SITES = tuple((name, view) for name in MECHANISMS for view in views_of(name))
"""Every mechanism under every view that it can follow."""
SITE_IDS = [f"{name}-{view}" for name, view in SITES]


@dataclass(frozen=True)
class Problem:
    """One attention problem: q (B, H, T, d), k (B, H, S, d), v (B, H, S, D), and where a stream of it is cut."""

    q: Tensor
    k: Tensor
    v: Tensor
    view: View
    query_length: Tensor
    key_length: Tensor
    key_mask: Tensor | None = None
    cuts: tuple[int, ...] = ()

    @property
    def step(self) -> int:
        """Queries that come together: a block, or one."""
        return self.view.size if isinstance(self.view, Blocks) else 1

    def part(self, queries: slice = ALL, keys: slice = ALL) -> tuple[Tensor, Tensor, Tensor, Layout]:
        """Return q, k, v and the layout of neighbouring queries and keys."""
        view = Prefix(self.view.lengths[..., queries]) if isinstance(self.view, Prefix) else self.view
        mask = None if self.key_mask is None else self.key_mask[:, keys]
        both = ((self.q, queries), (self.k, keys))
        places = (torch.arange(x.shape[-2], device=x.device)[which][None] for x, which in both)
        layout = Layout(view, *places, self.query_length, self.key_length, mask)
        return self.q[..., queries, :], self.k[..., keys, :], self.v[..., keys, :], layout

    def seen_by(self, queries: int) -> int:
        """Return how many keys the first queries see together."""
        if isinstance(self.view, Full):
            return self.k.shape[-2]
        if isinstance(self.view, Prefix):
            return min(int(self.view.lengths[queries - 1]), self.k.shape[-2]) if queries else 0
        return queries

    def to(self, dtype: torch.dtype) -> Problem:
        return replace(self, q=self.q.to(dtype), k=self.k.to(dtype), v=self.v.to(dtype))

    def of_streams(self, order: Sequence[int]) -> Problem:
        """Return the problem of the streams ``order``, in that order."""
        index = torch.tensor(order)
        several = isinstance(self.view, Prefix) and self.view.lengths.dim() == 2
        return Problem(
            *(x[index] for x in (self.q, self.k, self.v)),
            Prefix(self.view.lengths[index]) if several else self.view,
            self.query_length[index],
            self.key_length[index],
            None if self.key_mask is None else self.key_mask[index],
            self.cuts,
        )


def problem(view: View, queries: int, keys: int, seed: int = 0, batch: int = 2, **sizes: int) -> Problem:
    """Return a problem of normal random numbers; expected lengths are random, some shorter than the sequence."""
    generator = torch.Generator().manual_seed(seed)
    heads, head_dim, values = sizes.get("heads", 2), sizes.get("head_dim", 4), sizes.get("values", 3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, heads, *shape, dtype=torch.float64, generator=generator)

    def expected(length: int) -> Tensor:
        return torch.randint(1 + length // 2, 2 + 3 * length // 2, (batch,), generator=generator)

    x = Problem(
        normal(queries, head_dim), normal(keys, head_dim), normal(keys, values), view, expected(queries), expected(keys)
    )
    cuts = {cut // x.step * x.step for cut in (queries // 3, queries - queries // 3)} - {0, queries}
    return replace(x, cuts=tuple(sorted(cuts)))


def site_problem(view: str, queries: int, **sizes: int) -> Problem:
    """Return a problem for a view; its last stream is padded."""
    keys = queries + queries // 3 + 1 if view in ("full", "prefix") else queries
    x = problem(VIEWS[view](queries), queries, keys, seed=queries, **sizes)
    real = torch.tensor([keys] * (len(x.q) - 1) + [keys - keys // 4])
    return replace(x, key_mask=torch.arange(keys) < real.unsqueeze(-1))


def build(name: str, head_dim: int = 4, dtype: torch.dtype = torch.float64, chunk: int = CHUNK) -> Mechanism:
    """Return the mechanism, with small chunks if it has any; its random parameters are the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mechanism = build_attention(name, head_dim).to(dtype)
    mechanism.chunk = chunk
    return mechanism


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None, what: str = "output") -> None:
    """Require the tolerance of ``dtype`` (default: the actual tensor's) and equal shapes; NaN is not close."""
    assert actual.shape == expected.shape, f"{what} has another shape"
    if not actual.numel():
        return
    exact = expected.detach().double()
    worst = float((actual.detach().double() - exact).abs().max())
    limit = TOLERANCE[dtype or actual.dtype] * max(1.0, float(exact.abs().max()))
    assert worst <= limit, f"{what} is off by {worst:.2e}, {limit:.2e} is allowed"


def assert_all_close(actual: dict[str, Tensor], expected: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
    assert actual.keys() == expected.keys()
    for what in expected:
        assert_close(actual[what], expected[what], dtype, what)
