"""Several sets of a data folder in the place of one, as in ``--train-subset a,b``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data import BaseWrapperDataset, ConcatDataset, FairseqDataset

from mla_fairseq.data import manifest
from mla_fairseq.errors import UserError
from mla_fairseq.transcripts import normalise

logger = logging.getLogger(__name__)

MANY = 0.1
"""Share of transcripts too long for CTC above which a warning is given."""


class Sets(ConcatDataset):
    """The rows of several sets in the order of the sets: what a set with all of these rows would be.

    fairseq's concatenation has no texts and no paths, counts the ids of each set from 0, and takes the shortest
    utterances first.

    Args:
        datasets: fairseq's datasets, or its resampled ones.

    Raises:
        ValueError: some sets have durations and others have none.
    """

    def __init__(self, datasets: Sequence[FairseqDataset]) -> None:
        super().__init__(datasets)
        timed = {part.split: getattr(part, "durations", None) is not None for part in map(_whole, datasets)}
        if len(set(timed.values())) > 1:
            missing = next(name for name, has in timed.items() if not has)
            raise ValueError(f"{missing} has no column duration, but other sets have one: prepare it with --durations")

    def __getitem__(self, index: int) -> Any:
        """Return a row; its ``index`` counts from the first row of the first set."""
        item = super().__getitem__(index)
        return replace(item, index=index) if is_dataclass(item) and not isinstance(item, type) else item

    def num_tokens(self, index: int) -> int:
        """Return the frames of a row, which is what a set counts in its batches."""
        part, row = self._get_dataset_and_sample_index(index)
        return self.datasets[part].num_tokens(row)

    def ordered_indices(self) -> np.ndarray:
        """Return the rows from the longest to the shortest; equal ones in order, or at random with ``shuffle``."""
        rows = np.random.permutation(len(self)) if _whole(self.datasets[0]).shuffle else np.arange(len(self))
        return np.lexsort([rows, -self.sizes])

    @property
    def is_train_split(self) -> bool:
        """Whether the sets are training sets: the task does not mix them with others."""
        return _whole(self.datasets[0]).is_train_split

    @property
    def tgt_texts(self) -> list[str]:
        """The target texts of all rows."""
        return self._column("tgt_texts")

    @property
    def src_texts(self) -> list[str]:
        """The source texts of all rows."""
        return self._column("src_texts")

    @property
    def audio_paths(self) -> list[str]:
        """The paths of the features of all rows."""
        return self._column("audio_paths")

    @property
    def ids(self) -> list[str]:
        """The ids of all rows; two sets may have the same one."""
        return self._column("ids")

    def _column(self, name: str) -> list[str]:
        found: list[str] = []
        for part in self.datasets:
            values = getattr(_whole(part), name)
            # a resampled set draws other rows in each epoch
            rows = part._cur_indices.array if isinstance(part, BaseWrapperDataset) else range(len(part))
            found += [values[row] for row in rows]
        return found


def _whole(part: FairseqDataset) -> Any:
    """Return a set without fairseq's resampling."""
    return part.dataset if isinstance(part, BaseWrapperDataset) else part


def check_transcripts(dataset: FairseqDataset, name: str, stride: int) -> None:
    """Check that a training set has transcripts for CTC; warn of transcripts that are too long for it.

    Args:
        dataset: the training set.
        name: its name.
        stride: frames in an encoder state.

    Raises:
        ValueError: it has none, or transforms that join utterances.
    """
    whole = _whole(dataset)
    first = _whole(whole.datasets[0]) if isinstance(whole, Sets) else whole
    if first.dataset_transforms.transforms:
        raise ValueError(f"--ctc-weight cannot use dataset_transforms ({name}): remove them from the configuration")
    lengths = [len(normalise(text)) for text in whole.src_texts]
    if not any(lengths):
        raise ValueError(
            f"{name} has no transcript in its column src_text, so CTC cannot learn them: add transcripts, or train "
            "without --ctc-weight or with --ctc-text target"
        )
    long = sum(length > -(-whole.num_tokens(row) // stride) for row, length in enumerate(lengths)) / len(lengths)
    if long > MANY:
        logger.warning(
            "%.0f %% of the transcripts of %s have more characters than encoder states, and CTC cannot learn them: "
            "speech is too fast for states of %d ms; use --ctc-text target",
            100 * long,
            name,
            10 * stride,
        )


def check_combined(names: Sequence[str], folder: Path, alpha: float) -> None:
    """Check that sets can be loaded as one.

    Args:
        names: the sets.
        folder: the data folder, with their manifests.
        alpha: ``sampling_alpha`` of the data configuration; fairseq resamples training sets if it is not 1.

    Raises:
        ValueError: training sets mixed with others, or a set that fairseq cannot resample.
    """
    training = [name for name in names if name.startswith("train")]
    if training and len(training) < len(names):  # fairseq would mask or not mask all of them
        raise ValueError(f"{','.join(names)} mixes training sets with others: load {training[0]} by another command")
    for name in training if len(names) > 1 and alpha != 1 else ():
        pairs = manifest.languages(path := folder / f"{name}.tsv")
        if len(pairs) > 1:
            found = ", ".join("-".join(pair) for pair in sorted(pairs))
            raise ValueError(f"sampling_alpha needs sets of one language pair, but {path} has {found}: divide the set")


def set_names(names: str) -> list[str]:
    """Return the sets in a list such as ``train_a,train_b``.

    Raises:
        UserError: a name is empty.
    """
    if "" in (found := names.split(",")):
        raise UserError(f"the list of sets has an empty name ({names!r}): remove a comma, or give a name")
    return found
