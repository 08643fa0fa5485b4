"""Dropout whose mask takes 16 random bits per element on the CPU, where torch draws a number for each."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

LEVELS = 2**16
"""Values that 16 bits can take: the drop rate is a multiple of ``1 / LEVELS``."""


class Dropout(nn.Dropout):
    """Set elements to zero at random in training and rescale the others; a drop-in for ``nn.Dropout``.

    On the CPU the mask takes about a fifth of torch's time. The rate is rounded to a multiple of 2**-16, and the kept
    elements are divided by the exact fraction that is kept, so the expectation is the input. The mask follows
    ``torch.manual_seed``, but is not the mask that ``nn.Dropout`` draws from that seed. On other devices, under
    ``torch.compile``, in place, and for rates that round to 0 or 1, this is ``nn.Dropout``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the shape and type of ``input``; ``input`` itself in evaluation."""
        dropped = round(self.p * LEVELS)
        if not self.training or not 0 < dropped < LEVELS or self.inplace or not _fast(input):
            return super().forward(input)
        return (input * draw_mask(input, dropped)).to(input.dtype)


def draw_mask(x: Tensor, dropped: int) -> Tensor:
    """Return a mask in the shape and memory order of ``x``: zero in ``dropped`` of 65536 cases, else the scale.

    The scale is 65536 / (65536 - dropped). The mask is float32, or float64 where ``x`` is: half precision would round
    the scale.
    """
    # one int64 is four masks of 16 bits: `random_` then makes a quarter of the draws
    bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    mask = torch.empty_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
    flat = mask.as_strided((x.numel(),), (1,))  # memory order: `empty_like` is dense for any strides of `x`
    torch.ge(bits[: x.numel()], dropped - LEVELS // 2, out=flat)  # float at once: a boolean costs another pass
    return mask.mul_(LEVELS / (LEVELS - dropped))


def retain_dropout(model: nn.Module, owners: Collection[str] | None = None) -> None:
    """Apply dropout in evaluation too, in a model that is already in evaluation.

    Args:
        model: the model.
        owners: the classes of the modules whose dropout is applied, such as ``DecoderLayer``; ``None``: all.

    Raises:
        ValueError: a class of which the model has no module with dropout.
    """
    found = [
        (type(owner).__name__, module)
        for owner in model.modules()
        for module in owner.children()
        if isinstance(module, nn.Dropout)
    ]
    if missing := sorted(set(owners or ()) - {owner for owner, _ in found}):
        known = ", ".join(sorted({owner for owner, _ in found}))
        raise ValueError(f"--retain-dropout-modules names no module with dropout ({missing[0]}): use {known}")
    for owner, module in found:
        if owners is None or owner in owners:
            module.train()  # this module alone: the model stays in evaluation


def _fast(x: Tensor) -> bool:
    """Return whether ``x`` is masked by ``draw_mask`` rather than by torch."""
    return x.device.type == "cpu" and x.is_floating_point() and not torch.compiler.is_compiling()
