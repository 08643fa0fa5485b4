"""Checks at the command line's edge: what a user can get wrong, told in one line with its mend."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fairseq.models import FairseqEncoder
from torch import Tensor

from mla_fairseq.checkpoints import load_checkpoint
from mla_fairseq.errors import UserError, user_errors


def load_encoder(encoder: FairseqEncoder, path: str) -> FairseqEncoder:
    """Initialise an encoder from a model's checkpoint (``--load-pretrained-encoder-from``).

    Raises:
        UserError: the file is missing, is no checkpoint, or holds an encoder of another shape.
    """
    state = {
        name.removeprefix("encoder."): tensor
        for name, tensor in read_model(path).items()
        if name.startswith("encoder.") and not name.startswith("encoder.ctc_proj.")
    }
    own = {name: tensor for name, tensor in encoder.state_dict().items() if name.startswith("ctc_proj.")}
    load_strictly(encoder.load_state_dict, state | own)
    return encoder


def read_model(path: str) -> dict[str, Tensor]:
    """The parameters in a fairseq checkpoint; nothing in the file is run.

    Raises:
        UserError: the file is missing, or is no checkpoint of fairseq's.
    """
    with user_errors():
        return load_checkpoint(Path(path))["model"]


def load_strictly(load: Callable[..., Any], state_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """Call a ``load_state_dict``; differences in names or shapes become one line.

    Raises:
        UserError: the checkpoint is of another model.
    """
    try:
        return load(state_dict, *args, **kwargs)
    except RuntimeError as error:
        differences = [line.strip() for line in str(error).splitlines()[1:]]
        first = textwrap.shorten(differences[0].rstrip("."), 200, placeholder=" ...")
        raise UserError(
            f"the checkpoint is of another model (differences: {len(differences)}, the first: {first}): "
            "check --arch, the sizes and the vocabulary that it was trained with"
        ) from error
