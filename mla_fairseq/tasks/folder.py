"""What our tasks share: a data folder that may be moved, with its faults told in one line before training.

fairseq takes `audio_root` and the path of the CMVN statistics relative to the directory in which it was started, and
prefers such a directory's files to those of the data folder. Here every path of the configuration belongs to the
folder that the configuration is in.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import yaml
from fairseq import utils
from fairseq.data.audio.data_cfg import S2TDataConfig
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY

from mla_fairseq.checkpoints import load_training
from mla_fairseq.data import archive, manifest
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.checks import check_continued, check_criterion


class FolderDataConfig(S2TDataConfig):
    """fairseq's data configuration with relative paths taken from the folder of the yaml file."""

    def __init__(self, yaml_path: Path, script: str = "scripts/prep_mustc.py") -> None:
        if not yaml_path.is_file():
            there = ", ".join(sorted(path.name for path in yaml_path.parent.glob("*.yaml"))) or "none"
            raise UserError(
                f"{yaml_path} is missing (configurations there: {there}): "
                f"prepare the data with {script}, or correct --config-yaml"
            )
        try:
            content = yaml.safe_load(yaml_path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            content = None
        if not isinstance(content, dict):
            raise UserError(f"{yaml_path} is no data configuration: prepare the data again with {script}")
        super().__init__(yaml_path)
        self.config["audio_root"] = self.inside(self.config.get("audio_root", ""))
        for section, key in (("bpe_tokenizer", "sentencepiece_model"), ("global_cmvn", "stats_npz_path")):
            if key in self.config.get(section, {}):
                self.config[section][key] = path = self.inside(self.config[section][key])
                if not Path(path).is_file():
                    raise UserError(f"{path} is missing: prepare the data again with {script}")

    def inside(self, path: str) -> str:
        """The path seen from the folder of the yaml file; an absolute one stays."""
        return (self.root / path).resolve().as_posix()


class FolderTask:
    """A mixin in front of a task of fairseq's that reads manifests from ``args.data``."""

    script: ClassVar[str] = "scripts/prep_mustc.py"  # that prepares such a folder

    @classmethod
    def setup_task(cls, args, **kwargs):
        """As fairseq's.

        Raises UserError if the configuration, the dictionary, a checkpoint to read or a training set is not usable.
        """
        for name in (getattr(args, "train_subset", None) or "train").split(","):
            if not name.startswith("train"):
                raise UserError(f"--train-subset is {name}: fairseq trains only on sets whose name begins with train")
        config = FolderDataConfig(Path(args.data) / args.config_yaml, cls.script)
        dictionary = Path(args.data) / config.vocab_filename
        if not dictionary.is_file():
            raise UserError(f"{dictionary} is missing: prepare the data again with {cls.script}")
        check_checkpoints(args)
        return super().setup_task(args, **kwargs)

    def __init__(self, args, dictionary) -> None:
        super().__init__(args, dictionary)
        self.data_cfg = FolderDataConfig(Path(args.data) / args.config_yaml, self.script)

    def build_model(self, args, from_checkpoint: bool = False):
        """As fairseq's. Raises UserError for options that make no model, or another one than is to be continued."""
        with user_errors():
            if not from_checkpoint:
                check_continued(args)
            model = super().build_model(args, from_checkpoint)
            if not from_checkpoint and getattr(args, "path", None) is None:
                check_criterion(getattr(args, "criterion", None), model)
            return model

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """As fairseq's. Raises UserError for a missing manifest and for an archive that is not whole."""
        for name in split.split(","):
            self.check_split(name)
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)

    def get_batch_iterator(self, dataset, *args, **kwargs):
        """As fairseq's, but of an evaluation set no sentence is left out.

        fairseq cuts batches in multiples of `--required-batch-size-multiple` (8) and drops the rest of the set (its
        issue 5036): a test set of 433 sentences is scored on 432.
        """
        if not dataset.is_train_split:
            kwargs["required_batch_size_multiple"] = 1
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def check_split(self, split: str) -> None:
        """Raise UserError unless the manifest is there and its archives are whole and hold what it points at."""
        path = Path(self.args.data) / f"{split}.tsv"
        with user_errors():
            for name, places in manifest.places(path).items():
                archive.check(Path(self.data_cfg.audio_root) / name, places, wanted_by=path)


def check_checkpoints(args) -> None:
    """Read what fairseq is about to read (`--path`, `--finetune-from-model`, `--restore-file`), which would end in a
    traceback there.

    Raises UserError for a file that is missing, no checkpoint of fairseq's, or of an architecture that nobody knows.
    """
    paths = utils.split_paths(getattr(args, "path", None) or "")
    paths.append(getattr(args, "finetune_from_model", None))
    if (start := getattr(args, "restore_file", None)) != "checkpoint_last.pt":  # which need not be there
        paths.append(start)
    with user_errors():
        for path in filter(None, paths):
            _, name = load_training(Path(path))
            if name not in MODEL_REGISTRY and name not in ARCH_MODEL_REGISTRY:
                raise ValueError(f"{path} is of the architecture {name}, which is not known: add its --user-dir")
