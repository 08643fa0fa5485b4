"""The data configuration (yaml) that fairseq's speech-to-text task reads."""

from __future__ import annotations

from pathlib import Path

import yaml

from mla_fairseq.files import write_text

# Park et al. 2019, table 1, without time warping (it needs OpenCV and brings least).
#           (frequency masks, widest in bins, time masks, longest in frames, longest in parts of the utterance)
SPECAUGMENT = {
    "none": None,
    "lb": (1, 27, 1, 100, 1.0),
    "ld": (2, 27, 2, 100, 1.0),
    "sm": (2, 15, 2, 70, 0.2),
    "ss": (2, 27, 2, 70, 0.2),
}


def specaugment(policy: str) -> dict[str, float]:
    """The settings of a policy of `SPECAUGMENT` under fairseq's names."""
    names = ("freq_mask_N", "freq_mask_F", "time_mask_N", "time_mask_T", "time_mask_p")
    return {"time_warp_W": 0, **dict(zip(names, SPECAUGMENT[policy], strict=True))}


def write(path: Path, model: Path, cmvn: str, policy: str, statistics: Path | None = None) -> None:
    """Write the configuration. All paths in it are relative to its folder, so that the folder can be moved.

    cmvn: `utterance` or `global`; with `global`, `statistics` is the npz of mean and std.
    """
    everywhere = [f"{cmvn}_cmvn"]
    settings = {
        "audio_root": "",
        "vocab_filename": model.with_suffix(".txt").name,
        "bpe_tokenizer": {"bpe": "sentencepiece", "sentencepiece_model": model.name},
        "input_channels": 1,
        "input_feat_per_channel": 80,
        "sample_rate": 16000,
        "shuffle": False,
        "feature_transforms": {"*": everywhere, "_train": everywhere + ["specaugment"] * (policy != "none")},
    }
    if statistics is not None:
        settings["global_cmvn"] = {"stats_npz_path": statistics.name}
    if policy != "none":
        settings["specaugment"] = specaugment(policy)
    write_text(path, yaml.dump(settings, Dumper=_Plain, sort_keys=True))


class _Plain(yaml.SafeDumper):
    """Writes a list that occurs twice twice, without YAML's references."""

    def ignore_aliases(self, data: object) -> bool:
        return True
