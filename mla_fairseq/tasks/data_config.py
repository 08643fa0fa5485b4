"""fairseq's data configuration for a data folder that may be moved.

fairseq resolves ``audio_root`` and the path of the CMVN statistics in its working directory, and prefers files there
to those of the data folder. Here every path of the configuration is resolved in the configuration's folder.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fairseq.data import encoders
from fairseq.data.audio.data_cfg import S2TDataConfig
from fairseq.data.audio.dataset_transforms import AUDIO_DATASET_TRANSFORM_REGISTRY
from fairseq.data.audio.feature_transforms import AUDIO_FEATURE_TRANSFORM_REGISTRY
from fairseq.data.audio.waveform_transforms import AUDIO_WAVEFORM_TRANSFORM_REGISTRY

from mla_fairseq.data.check import read_folder
from mla_fairseq.errors import user_errors


class FolderDataConfig(S2TDataConfig):
    """fairseq's data configuration, with relative paths resolved in the folder of the yaml file.

    Args:
        yaml_path: the configuration.
        command: the command that prepares such a folder, for error messages.
        needed: sections that the task needs.

    Raises:
        UserError: the configuration, or a file that it names, is missing or broken.
    """

    def __init__(self, yaml_path: Path, command: str = "mla-prepare", needed: Collection[str] = ()) -> None:
        known = {
            "feature": AUDIO_FEATURE_TRANSFORM_REGISTRY.keys(),
            "waveform": AUDIO_WAVEFORM_TRANSFORM_REGISTRY.keys(),
            "dataset": AUDIO_DATASET_TRANSFORM_REGISTRY.keys(),
            "bpe": encoders.BPE_REGISTRY.keys(),
            "tokenizer": encoders.TOKENIZER_REGISTRY.keys(),
        }
        with user_errors():
            settings = read_folder(yaml_path, known, command, needed)
        super().__init__(yaml_path)
        self.config = settings

    def leave_out_augmentation(self) -> None:
        """Read training sets as evaluation sets: fairseq masks every set named train..., in decoding too."""
        for name, transforms in self.config.items():
            if name.endswith("transforms") and "_train" in transforms:
                transforms["_train"] = transforms.get("_eval", transforms.get("*", []))
