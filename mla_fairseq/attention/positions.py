"""Position vectors (psi): where a token stands, and the lengths that positions are measured against.

A position class has two methods, ``query`` and ``key``, with the same arguments:

    features (B, H, N, F)   phi of the tokens, for positions that are learned from content
    index    (B or 1, N)    1 for the first token of the sequence, as in the papers
    length   (B or 1,)      the length that the index is measured against, in tokens

and returns psi, (B or 1, H or 1, N, M). Weights are multiplied by psi_q(t) . psi_k(s). ``size`` is M. A class that is
``fixed`` (false where it is missing) is one formula of index and length: it is made without arguments, its psi ignores
the features, and ``key`` returns what ``query`` returns. Layers then share what it gave. A subclass says it anew. One
that is not ``measured`` (true where it is missing) looks at the features alone: index and length may be ``None``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def proportion(index: Tensor, length: Tensor) -> Tensor:
    """min(index / length, 1), (B, N). Beyond the expected length a position stays at the end: an angle past pi / 2
    would make weights negative."""
    return (index / length.clamp_min(1).unsqueeze(-1)).clamp_max_(1.0)


class CosinePositions(nn.Module):
    """cosFormer's re-weighting cos(pi/2 (i / L_q - j / L_k)) as psi = [cos a, sin a], M = 2.

    arXiv 2202.08791, equation 10, with one length per side and sample as in MLA (arXiv 2304.08453).
    """

    size = 2
    fixed = True

    def query(self, features: Tensor, index: Tensor, length: Tensor) -> Tensor:
        angle = proportion(index.to(features.dtype), length).mul_(math.pi / 2)
        return torch.stack((angle.cos(), angle.sin()), dim=-1).unsqueeze(1)

    key = query
