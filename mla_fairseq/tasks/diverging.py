"""Report a training that has diverged in one line, in place of a traceback."""

from __future__ import annotations

import sys

from mla_fairseq.errors import UserError


def check_diverged() -> None:
    """Check that a batch is not computed again because its gradients are not finite.

    fairseq computes it again while it handles the error, to print where the first NaN is, and ends with a traceback.

    Raises:
        UserError: it is.
    """
    if isinstance(sys.exc_info()[1], FloatingPointError):
        raise UserError(
            "the training has diverged (its gradients are NaN or infinite): lower --lr or --clip-norm, or start from "
            "another checkpoint"
        )
