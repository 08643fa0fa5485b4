"""Checks at the command line's edge: what a user can get wrong, told in one line with its mend."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from fairseq.models import FairseqEncoder
from torch import Tensor

PREPARE = "prepare the data again with scripts/prep_mustc.py"


class UserError(SystemExit):
    """An error of the user's to mend. Uncaught, it ends a command with its one line instead of a traceback."""


def check_inputs(args: Namespace) -> None:
    """Check that the manifests of a training or generation command are there, and the archives they point into whole.

    Raises:
        UserError: a manifest is missing, or an archive is missing or shorter than its manifest says.
    """
    data = getattr(args, "data", None)
    if data is None:
        return
    for subset in _subsets(args):
        manifest = Path(data) / f"{subset}.tsv"
        if not manifest.is_file():
            there = ", ".join(sorted(path.stem for path in Path(data).glob("*.tsv"))) or "none"
            raise UserError(f"error: no manifest {manifest}: {PREPARE}, or choose one that is there ({there})")
        _check_archives(manifest, _audio_root(args))


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
    if not Path(path).is_file():
        raise UserError(f"error: no checkpoint {path}: check the path")
    try:
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
        return state["model"]
    except Exception as error:  # whatever the unpickler meets in a foreign file, the user's mend is the same
        raise UserError(f"error: {path} is not a fairseq checkpoint: give one that fairseq-train saved") from error


def load_strictly(load: Callable[..., Any], state_dict: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """Call a ``load_state_dict``; differences in names or shapes become one line.

    Raises:
        UserError: the checkpoint is of another model.
    """
    try:
        return load(state_dict, *args, **kwargs)
    except RuntimeError as error:
        differences = [line.strip() for line in str(error).splitlines()[1:]]
        raise UserError(
            f"error: the checkpoint is of another model ({len(differences)} differences, first: {differences[0]}): "
            "check --arch, the sizes and the vocabulary that it was trained with"
        ) from error


def _subsets(args: Namespace) -> list[str]:
    """The manifests that a command reads: generation names a checkpoint (``path``), training does not."""
    if getattr(args, "path", None):
        names = [args.gen_subset]
    else:
        names = [getattr(args, "train_subset", None), getattr(args, "valid_subset", None)]
    return [subset for name in names if name for subset in name.split(",")]


def _audio_root(args: Namespace) -> Path:
    from fairseq.data.audio.data_cfg import S2TDataConfig

    return Path(S2TDataConfig(Path(args.data) / args.config_yaml).audio_root)


def _check_archives(manifest: Path, root: Path) -> None:
    for archive, needed in _archive_sizes(manifest):
        path = root / archive
        if not path.is_file():
            raise UserError(f"error: {manifest} points into {path}, which does not exist: {PREPARE}")
        if path.stat().st_size < needed:
            raise UserError(
                f"error: {path} is truncated: it has {path.stat().st_size} bytes and {manifest} needs {needed}; "
                f"delete it and {PREPARE}"
            )


def _archive_sizes(manifest: Path) -> Iterator[tuple[str, int]]:
    """Each archive of a manifest, with the last byte that its rows point at."""
    needed: dict[str, int] = {}
    with manifest.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            archive, *place = row["audio"].rsplit(":", 2)
            needed[archive] = max(needed.get(archive, 0), sum(map(int, place)))
    yield from needed.items()
