"""fairseq's speech-to-text task on a data folder that may be moved, with faults of the data found before training.

fairseq takes `audio_root` and the path of the CMVN statistics relative to the directory in which it was started, and
prefers such a directory's files to those of the data folder. Here every path of the configuration belongs to the
folder that the configuration is in.
"""

from __future__ import annotations

from pathlib import Path

from fairseq import utils
from fairseq.data.audio.data_cfg import S2TDataConfig
from fairseq.tasks import register_task
from fairseq.tasks.speech_to_text import SpeechToTextTask

from mla_fairseq.checkpoints import load_checkpoint
from mla_fairseq.data import archive, manifest
from mla_fairseq.errors import UserError


class FolderDataConfig(S2TDataConfig):
    """fairseq's data configuration with relative paths taken from the folder of the yaml file."""

    def __init__(self, yaml_path: Path) -> None:
        if not yaml_path.is_file():
            there = ", ".join(sorted(path.name for path in yaml_path.parent.glob("*.yaml"))) or "none"
            raise UserError(
                f"{yaml_path} is missing (configurations there: {there}): "
                "prepare the data with scripts/prep_mustc.py, or correct --config-yaml"
            )
        super().__init__(yaml_path)
        self.config["audio_root"] = self.inside(self.config.get("audio_root", ""))
        for section, key in (("bpe_tokenizer", "sentencepiece_model"), ("global_cmvn", "stats_npz_path")):
            if key in self.config.get(section, {}):
                self.config[section][key] = self.inside(self.config[section][key])

    def inside(self, path: str) -> str:
        """The path seen from the folder of the yaml file; an absolute one stays."""
        return (self.root / path).resolve().as_posix()


@register_task("speech_to_text_mla")
class SpeechToTextMLATask(SpeechToTextTask):
    """`--task speech_to_text_mla`: fairseq's `speech_to_text` on such a folder, with its faults told in one line."""

    @classmethod
    def setup_task(cls, args, **kwargs):
        """As fairseq's. Raises UserError if the configuration, the dictionary or a checkpoint to read is not usable."""
        dictionary = Path(args.data) / FolderDataConfig(Path(args.data) / args.config_yaml).vocab_filename
        if not dictionary.is_file():
            raise UserError(f"{dictionary} is missing: prepare the data again with scripts/prep_mustc.py")
        check_checkpoints(args)
        return super().setup_task(args, **kwargs)

    def __init__(self, args, tgt_dict) -> None:
        super().__init__(args, tgt_dict)
        self.data_cfg = FolderDataConfig(Path(args.data) / args.config_yaml)

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
        try:
            for name, places in manifest.places(path).items():
                archive.check(Path(self.data_cfg.audio_root) / name, places, wanted_by=path)
        except ValueError as error:
            raise UserError(str(error)) from error


def check_checkpoints(args) -> None:
    """Read what fairseq is about to read (`--path`, `--finetune-from-model`), which would end in a traceback there.

    Raises UserError for a file that is missing or no checkpoint of fairseq's.
    """
    paths = utils.split_paths(getattr(args, "path", None) or "")
    paths.append(getattr(args, "finetune_from_model", None))
    try:
        for path in filter(None, paths):
            load_checkpoint(Path(path))
    except ValueError as error:
        raise UserError(str(error)) from error
