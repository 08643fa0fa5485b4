"""Share between tasks a data folder that may be moved, whose faults are reported in one line before training."""

from __future__ import annotations

import csv
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from fairseq import utils
from fairseq.data import Dictionary, FairseqDataset
from fairseq.optim import FairseqOptimizer
from fairseq.tasks import FairseqTask
from torch import nn

from mla_fairseq.checkpoints import check_exists, check_symbols, load_training
from mla_fairseq.data.check import bins, warn_of_unknown_order
from mla_fairseq.data.check_manifest import check_manifest
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.checks import check_continued, check_criterion, starts
from mla_fairseq.models.distributed import share_statistics
from mla_fairseq.models.loading import check_trusted
from mla_fairseq.processes import end_forks_with_this
from mla_fairseq.tasks.data_config import FolderDataConfig
from mla_fairseq.tasks.diverging import check_diverged
from mla_fairseq.tasks.features import check_batches, check_features
from mla_fairseq.tasks.flags import check_flags
from mla_fairseq.tasks.resuming import choose_checkpoint
from mla_fairseq.tasks.sets import Sets, check_combined, set_names
from mla_fairseq.tasks.starting import TRAINED, check_loadable


class FolderTask(FairseqTask):
    """A mixin for fairseq's tasks that read manifests from ``args.data``; it must be the first base class."""

    command: ClassVar[str] = "mla-prepare"  # prepares such a folder
    needed: ClassVar[tuple[str, ...]] = ()  # sections of the data configuration
    foreign: ClassVar[tuple[str, ...]] = (
        "tts_",
        "fastspeech",
        "transformer_lm",
    )  # first letters of architectures of other tasks

    @classmethod
    def setup_task(cls, args: Namespace, **kwargs: Any) -> FairseqTask:
        """Set up the task as fairseq does.

        Raises:
            UserError: the configuration, the dictionary, a checkpoint to read or a training set cannot be used, or a
                flag is not supported.
        """
        check_flags(args, bool(kwargs.get("from_checkpoint")))
        for name in set_names(getattr(args, "train_subset", None) or "train"):
            if not name.startswith("train"):
                raise UserError(
                    f"--train-subset does not begin with train ({name}): rename the set, fairseq trains on no other"
                )
        FolderDataConfig(Path(args.data) / args.config_yaml, cls.command, cls.needed)
        started = not kwargs.get("from_checkpoint")  # a trained model does not need the files that it started from
        if started:
            choose_checkpoint(args)
        task = super().setup_task(args, **kwargs)
        if started:
            check_checkpoints(args, task.state.state_dict["symbols"])
        return task

    def __init__(self, args: Namespace, dictionary: Dictionary) -> None:
        super().__init__(args, dictionary)
        self.state.merge_state_dict({"symbols": list(dictionary.symbols)})  # saved in checkpoints
        self.data_cfg = FolderDataConfig(Path(args.data) / args.config_yaml, self.command, self.needed)
        self.evaluates = getattr(args, "path", None) is not None  # of fairseq's commands only training has no --path
        if self.evaluates:
            self.data_cfg.leave_out_augmentation()

    def build_model(self, args: Namespace, from_checkpoint: bool = False) -> Any:
        """Build a model as fairseq does.

        Raises:
            UserError: options that do not make a model, or make another one than the training continues.
        """
        with user_errors():
            self.check_architecture(args)
            training = not from_checkpoint and getattr(args, "path", None) is None  # --path: decoding, no criterion
            if training:
                check_trusted(TRAINED, str(getattr(args, "_name", None) or getattr(args, "arch", None)))
            if not from_checkpoint:
                check_continued(args, self.state.state_dict["symbols"])
            model = super().build_model(args, from_checkpoint)
            if training:
                check_criterion(args, model)
                check_loadable(args, model)
            return model

    def build_criterion(self, args: Any) -> Any:
        """Build a criterion as fairseq does.

        Raises:
            UserError: ``fairseq-validate`` has none, because that of the checkpoint is not supported.
        """
        if args is None:
            raise UserError("the checkpoint has a criterion that is not supported here: name another with --criterion")
        return super().build_criterion(args)

    def check_architecture(self, args: Namespace) -> None:
        """Refuse a model of another task.

        Raises:
            ValueError: the architecture has inputs or outputs that the task does not have.
        """
        name = str(getattr(args, "_name", None) or getattr(args, "arch", None))
        if name.startswith(self.foreign):
            task = getattr(self.args, "task", None) or type(self).__name__
            raise ValueError(f"the architecture is {name}, which is not of --task {task}: use another model or --task")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint's state as fairseq does.

        Raises:
            UserError: the checkpoint has other symbols, so that each embedding would get another symbol.
        """
        with user_errors():
            known = self.state.state_dict["symbols"]
            check_symbols("the checkpoint", {"task_state": state_dict}, known, self.args.data)
        if "symbols" not in state_dict:
            warn_of_unknown_order(self.args.data)
        super().load_state_dict(state_dict)

    def train_step(self, sample: Any, *batch: Any, **kwargs: Any) -> Any:
        """Compute the loss and the gradients of a batch as fairseq does.

        Raises:
            UserError: the training has diverged.
        """
        check_diverged()
        return super().train_step(sample, *batch, **kwargs)

    def optimizer_step(self, optimizer: FairseqOptimizer, model: nn.Module, update_num: int) -> None:
        """Update the model as fairseq does, and let all processes have the same statistics in it."""
        super().optimizer_step(optimizer, model, update_num)
        share_statistics(model)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a dataset as fairseq does.

        Raises:
            UserError: a missing or broken manifest, an incomplete archive, or sets that cannot be combined.
        """
        names = set_names(split)
        for name in names:
            self.check_split(name)
        with user_errors():
            check_combined(names, Path(self.args.data), self.data_cfg.sampling_alpha)
        # fairseq reads manifests by csv, which refuses texts above 131,072 characters by default
        csv.field_size_limit(sys.maxsize)
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        check_features(self.datasets[split], bins(self.data_cfg.config), self.args.seed)
        if len(names) > 1:
            with user_errors():
                self.datasets[split] = Sets(self.datasets[split].datasets)

    def get_batch_iterator(self, dataset: FairseqDataset, *args: Any, **kwargs: Any) -> Any:
        """Return fairseq's iterator over batches, without its loss of sentences in evaluation sets."""
        if self.evaluates or not dataset.is_train_split:
            # fairseq cuts batches to multiples of this number (8) and drops the rest of the set (its issue 5036):
            # of 433 test sentences it would score 432
            kwargs["required_batch_size_multiple"] = 1
        shards, flag = kwargs.get("num_shards", 1) if self.evaluates else 1, "--distributed-world-size"
        if getattr(self.args, "num_shards", 1) > 1:  # fairseq's own commands ignore it
            shards, flag = self.args.num_shards, "--num-shards"
            kwargs |= {"num_shards": shards, "shard_id": self.args.shard_id}
        if kwargs.get("num_workers", 0) > 0:
            end_forks_with_this()
        with user_errors("increase --max-tokens or --max-tokens-valid: ", (AssertionError,)):
            batches = super().get_batch_iterator(dataset, *args, **kwargs)
        if shards > 1 and len(batches.frozen_batches) < shards:
            found = len(batches.frozen_batches)
            raise UserError(f"{flag} is above the number of batches ({shards} > {found}): decrease it")
        if not len(batches.frozen_batches):  # fairseq drops a last batch that is no multiple
            raise UserError(
                "the set has fewer utterances than --required-batch-size-multiple "
                f"({kwargs.get('required_batch_size_multiple')}): decrease it"
            )
        return check_batches(batches)

    def filter_indices_by_size(
        self, indices: Any, dataset: FairseqDataset, max_positions: Any = None, ignore_invalid_inputs: bool = False
    ) -> Any:
        """Return the utterances that are not too long.

        Raises:
            UserError: one is too long, and the command does not leave such utterances out.
        """
        _, ignored = dataset.filter_indices_by_size(indices, max_positions)
        if len(ignored) > 0 and not ignore_invalid_inputs:
            raise UserError(
                f"utterance {ignored[0]} is too long (source and target: {dataset.size(ignored[0])}, at most "
                f"{max_positions}): increase --max-source-positions and --max-target-positions, or leave out such "
                "utterances with --skip-invalid-size-inputs-valid-test"
            )
        if len(ignored) == len(indices):
            raise UserError(
                f"every utterance is too long (utterance {ignored[0]}, source and target: {dataset.size(ignored[0])}, "
                f"at most {max_positions}): increase --max-tokens, --max-source-positions or --max-target-positions"
            )
        return super().filter_indices_by_size(indices, dataset, max_positions, ignore_invalid_inputs)

    def check_split(self, split: str) -> None:
        """Check the rows of a manifest, and that its archives contain what it points at.

        Raises:
            UserError: the first fault.
        """
        config, symbols = self.data_cfg, None
        if split.startswith("train") and "spoken_text" in config.config:  # the dictionary was made from such a set
            symbols = frozenset(self.source_dictionary.symbols)
        texts = split.startswith("train") or self.target_dictionary is None  # to train on, or to synthesise
        with user_errors():
            check_manifest(
                Path(self.args.data) / f"{split}.tsv",
                Path(config.audio_root),
                bins(config.config),
                texts,
                self.speaker_to_id,
                symbols,
            )


def check_checkpoints(args: Namespace, symbols: Sequence[str]) -> None:
    """Check the checkpoints that fairseq is about to load, because it would end with a traceback.

    Those of ``--path`` must exist; the task checks them when it loads them. Those that a training starts from,
    ``--restore-file`` and, unless it resumes, ``--finetune-from-model``, must have the ``symbols`` of the data, which
    fairseq does not check.

    Raises:
        UserError: a file that is missing, not a fairseq checkpoint, of other symbols, or of an architecture that is
            unknown or not supported.
    """
    with user_errors():
        for path in filter(None, utils.split_paths(getattr(args, "path", None) or "")):
            check_exists(Path(path))
        for path in starts(args):
            state, name = load_training(Path(path))
            check_trusted(path, name)
            check_symbols(path, state, symbols, args.data)
            if "symbols" not in (state.get("task_state") or {}):
                warn_of_unknown_order(args.data)
