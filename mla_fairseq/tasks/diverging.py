"""Report a training that has diverged in one line, in place of a traceback."""

from __future__ import annotations

import sys

from mla_fairseq.errors import UserError


def check_diverged(update: int) -> None:
    """Check that this batch is not computed again because its gradients are not finite, after so many updates.

    fairseq computes it again while it handles the error, to print where the first NaN is, and ends with a traceback.

    Raises:
        UserError: it is.
    """
    if isinstance(sys.exc_info()[1], FloatingPointError):
        raise UserError(
            f"the training has diverged (gradients of update {update + 1} are NaN or infinite): lower --lr or "
            "--clip-norm, or start from another checkpoint"
        )
