"""What the laws range over: every registered mechanism and view, and random problems for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from mla_fairseq.attention import (
    Blocks,
    Causal,
    Full,
    Lengths,
    Prefix,
    View,
    available_attention,
    build_attention,
)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "custom_attention" / "quadratic_distance.py"

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest difference in any number, as a part of the largest number of the expected tensor (or of 1)."""

CHUNK = 16
"""Chunk of the linear mechanisms under test; the lengths around it are where chunked code goes wrong."""
LENGTHS = (1, CHUNK - 1, CHUNK, CHUNK + 1, 203)


def load_example() -> ModuleType:
    """Run the example's file, which registers its mechanism as a user's file would."""
    spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


load_example()
MECHANISMS = tuple(available_attention())
KEY_VALUE = frozenset({"softmax"})
"""Mechanisms whose state holds the keys themselves: it grows, and a view may limit how far back they see."""

VIEWS: dict[str, Callable[[int], View]] = {
    "full": lambda queries: Full(),
    "causal": lambda queries: Causal(),
    "window": lambda queries: Causal(window=5),
    "blocks": lambda queries: Blocks(6),
    "bigblocks": lambda queries: Blocks(CHUNK + 3),
    "leftblocks": lambda queries: Blocks(6, left=1),
    "prefix": lambda queries: Prefix(3 * torch.arange(queries) // 2),
}
"""Name -> the view for so many queries. The prefix starts empty, falls still, and ends beyond the keys."""
LIMITED = frozenset({"window", "leftblocks"})
IN_ORDER = frozenset(name for name in MECHANISMS if getattr(build_attention(name, 4), "in_order", False))
"""Mechanisms that fade, and so follow only views that go forward."""
ANYWHERE = tuple(name for name in MECHANISMS if name not in IN_ORDER)
"""Mechanisms that may stand at every site."""
FORWARD = frozenset({"causal", "blocks", "bigblocks"})


def views_of(name: str) -> list[str]:
    """The views that a mechanism can follow."""
    known = FORWARD if name in IN_ORDER else VIEWS.keys() - (frozenset() if name in KEY_VALUE else LIMITED)
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
    lengths: Lengths
    key_mask: Tensor | None = None
    cuts: tuple[int, ...] = ()

    def to(self, dtype: torch.dtype) -> Problem:
        return replace(self, q=self.q.to(dtype), k=self.k.to(dtype), v=self.v.to(dtype))

    def of_streams(self, order: Sequence[int]) -> Problem:
        """The same problem for the streams ``order``, in that order."""
        index = torch.tensor(order)
        view = self.view
        if isinstance(view, Prefix) and view.lengths.dim() == 2:
            view = Prefix(view.lengths[index])
        mask = None if self.key_mask is None else self.key_mask[index]
        lengths = Lengths(self.lengths.query[index], self.lengths.key[index])
        return replace(
            self, q=self.q[index], k=self.k[index], v=self.v[index], view=view, lengths=lengths, key_mask=mask
        )


def problem(view: View, queries: int, keys: int, seed: int = 0, batch: int = 2, **sizes: int) -> Problem:
    """Normal random numbers; expected lengths are drawn too, some shorter than the sequence."""
    generator = torch.Generator().manual_seed(seed)
    heads, head_dim, values = sizes.get("heads", 2), sizes.get("head_dim", 4), sizes.get("values", 3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, heads, *shape, dtype=torch.float64, generator=generator)

    def expected(length: int) -> Tensor:
        return torch.randint(1 + length // 2, 2 + 3 * length // 2, (batch,), generator=generator)

    q, k, v = normal(queries, head_dim), normal(keys, head_dim), normal(keys, values)
    return Problem(q, k, v, view, Lengths(expected(queries), expected(keys)), cuts=pieces_at(view, queries))


def site_problem(view: str, queries: int, ragged: bool = True, **sizes: int) -> Problem:
    """The problem of a view at one length; the last stream of a ragged one is padded."""
    keys = queries + queries // 3 + 1 if view in ("full", "prefix") else queries
    x = problem(VIEWS[view](queries), queries, keys, seed=queries, **sizes)
    if not ragged:
        return x
    real = torch.tensor([keys] * (len(x.q) - 1) + [keys - keys // 4])
    return replace(x, key_mask=torch.arange(keys) < real.unsqueeze(-1))


def pieces_at(view: View, queries: int) -> tuple[int, ...]:
    """Two uneven cuts of a stream, where the view allows them."""
    size = view.size if isinstance(view, Blocks) else 1
    return tuple(sorted({cut // size * size for cut in (queries // 3, queries - queries // 3)} - {0, queries}))


def build(name: str, head_dim: int = 4, dtype: torch.dtype = torch.float64, chunk: int = CHUNK) -> nn.Module:
    """The mechanism, with small chunks where it has any; what it draws is the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mechanism = build_attention(name, head_dim).to(dtype)
    if hasattr(mechanism, "chunk"):
        mechanism.chunk = chunk
    return mechanism


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype | None = None, what: str = "output") -> None:
    """Within the tolerance of ``dtype`` (by default the actual tensor's own), and of equal shape; NaN is not near."""
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
