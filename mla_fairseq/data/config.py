"""Write the data configuration (yaml) that fairseq's speech-to-text task reads."""

from __future__ import annotations

from pathlib import Path

import yaml

from mla_fairseq.files import write_text

# Park et al. 2019, table 1, without time warping (it needs OpenCV and helps least).
# (frequency masks, widest in bins, time masks, longest in frames, longest as a fraction of the utterance)
SPECAUGMENT: dict[str, tuple[float, ...] | None] = {
    "none": None,
    "lb": (1, 27, 1, 100, 1.0),
    "ld": (2, 27, 2, 100, 1.0),
    "sm": (2, 15, 2, 70, 0.2),
    "ss": (2, 27, 2, 70, 0.2),
}


def specaugment(policy: str) -> dict[str, float]:
    """Return the settings of a policy of ``SPECAUGMENT`` under fairseq's names; ``none`` has no settings."""
    names = ("freq_mask_N", "freq_mask_F", "time_mask_N", "time_mask_T", "time_mask_p")
    values = SPECAUGMENT[policy]
    return {} if values is None else {"time_warp_W": 0, **dict(zip(names, values, strict=True))}


def write(path: Path, model: Path, cmvn: str, policy: str, statistics: Path | None = None) -> None:
    """Write the configuration, with paths relative to its folder, so that the folder can be moved.

    Args:
        path: the configuration to write.
        model: the SentencePiece model; the dictionary is beside it.
        cmvn: ``utterance`` or ``global``.
        policy: a key of ``SPECAUGMENT``, for the training splits only.
        statistics: the npz of mean and std, for ``global``.
    """
    everywhere = [f"{cmvn}_cmvn"]
    settings: dict[str, object] = {
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
    """Write a repeated list in full, without YAML's references, which are hard to edit by hand."""

    def ignore_aliases(self, data: object) -> bool:
        return True
