"""Report a training or a model that has diverged in one line, in place of fairseq's traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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


@contextmanager
def finite_scores(sample: Mapping[str, Any], path: str | None) -> Iterator[None]:
    """Report a batch in which fairseq's search finds no hypothesis, because all scores of the model are NaN.

    Args:
        sample: the batch.
        path: the checkpoint, if it is known.

    Raises:
        UserError: the search has failed.
    """
    try:
        yield
    except AssertionError as error:  # of the search, which has reached its last step
        where = f" for sentence {sample['id'].tolist()[0]} or its batch" if "id" in sample else ""
        raise UserError(
            f"the scores of {path or 'the model'} are not finite{where}: use another checkpoint, or prepare the "
            "features again"
        ) from error
