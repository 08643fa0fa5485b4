"""Calls of autograd functions, some streams and heads at a time where tensors are large.

On a CPU, what a part needs on the way then stays in the cache, and the allocator gives it the memory that the part
before left, instead of fresh pages from the system: fresh pages can take longer than the products that fill them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

PART = 2**20
"""Numbers (4 MB in float32) in a tensor of a part."""

Part = tuple[slice, slice]
"""Which streams, which heads."""


def apply(function: type[Function], numbers: int, q: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """``function.apply(q, *others)``, which returns a tuple.

    Tensors are (B or 1, H or 1, ..), q is (B, H, ..); ``numbers`` is how many numbers a large tensor inside the
    function has for one stream and head. Where nothing needs a gradient, autograd is left out: short sequences notice.
    """
    batch, heads = q.shape[:2]
    arguments = (q, *others)
    if batch * heads * numbers > PART and q.device.type == "cpu":
        arguments = (function, _parts(batch, heads, numbers), *arguments)
        function = InParts
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments):
        return function.apply(*arguments)
    return function.forward(_NoGraph(), *arguments)


class InParts(Function):
    """``function`` on one part after the other."""

    @staticmethod
    def forward(ctx: Any, function: type[Function], parts: Sequence[Part], *arguments: Any) -> tuple[Tensor, ...]:
        ctx.function, ctx.parts, ctx.lead = function, parts, arguments[0].shape[:2]
        ctx.contexts, results = [], None
        for part in parts:
            context = _NoGraph() if isinstance(ctx, _NoGraph) else _Context()
            ctx.contexts.append(context)
            result = function.forward(context, *(_part(x, part) for x in arguments))
            results = _gather(results, result, part, ctx.lead)
        ctx.save_for_backward(*(x for context in ctx.contexts for x in context.give_tensors()))
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved, results = iter(ctx.saved_tensors), None
        for context, part in zip(ctx.contexts, ctx.parts, strict=True):
            context.saved_tensors = tuple(islice(saved, context.number))
            result = ctx.function.backward(context, *(_part(x, part) for x in gradients))
            context.give_tensors()
            results = _gather(results, result, part, ctx.lead)
        return None, None, *results


class _Context:
    """Stands for autograd's context in a part."""

    saved_tensors: tuple[Tensor | None, ...] = ()
    number = 0

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.saved_tensors, self.number = tensors, len(tensors)

    def give_tensors(self) -> tuple[Tensor | None, ...]:
        """The saved tensors, which are held here no longer."""
        tensors, self.saved_tensors = self.saved_tensors, ()
        return tensors


class _NoGraph(_Context):
    """Stands for autograd's context where nothing will be differentiated."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        pass


def _parts(batch: int, heads: int, numbers: int) -> list[Part]:
    """Some heads of one stream, or some whole streams."""
    at_once = max(1, PART // numbers)
    rows, columns = max(1, at_once // heads), min(heads, at_once)
    return [
        (slice(row, row + rows), slice(column, column + columns))
        for row in range(0, batch, rows)
        for column in range(0, heads, columns)
    ]


def _part(x: Any, part: Part) -> Any:
    if not isinstance(x, Tensor):
        return x
    return x[tuple(slice(None) if size == 1 else place for size, place in zip(x.shape, part, strict=False))]


def _gather(
    totals: tuple[Tensor | None, ...] | None, results: Sequence[Tensor | None], part: Part, lead: Sequence[int]
) -> tuple[Tensor | None, ...]:
    """Put the results of a part where they belong in the results of all."""
    if totals is None:
        totals = tuple(None if x is None else x.new_empty(*lead, *x.shape[2:]) for x in results)
    for total, x in zip(totals, results, strict=True):
        if x is not None:
            total[part] = x
    return totals
