"""Content features (phi): what a token says, as non-negative numbers.

A feature map takes queries or keys (.., d) and returns (.., F), all >= 0, so that weights are never negative and the
normaliser never cancels. There is no 1 / sqrt(d): the normaliser would divide it out again.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class ReLUFeatures(nn.Module):
    """phi(x) = max(x, 0): cosFormer (arXiv 2202.08791), and MLA's "simple attention" (arXiv 2304.08453)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class ELUFeatures(nn.Module):
    """phi(x) = ELU(x) + 1 (Katharopoulos et al. 2020, arXiv 2006.16236, equation 7); F = d."""

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x) + 1
