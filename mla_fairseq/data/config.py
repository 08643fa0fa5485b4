"""Write the data configuration (yaml) that fairseq's speech-to-text task reads, and read it with checks."""

from __future__ import annotations

import difflib
import importlib.util
import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from mla_fairseq.files import read_text, unusable, write_text
from mla_fairseq.parsing import parse_yaml

log = logging.getLogger(__name__)

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


def write(
    path: Path,
    model: Path,
    cmvn: str,
    policy: str,
    statistics: Path | None = None,
    tags: bool = False,
    ctc_vocabulary: Path | None = None,
) -> None:
    """Write the configuration, with paths relative to its folder, so that the folder can be moved.

    Args:
        path: the configuration to write.
        model: the SentencePiece model; the dictionary is beside it.
        cmvn: ``utterance`` or ``global``.
        policy: a key of ``SPECAUGMENT``, for the training splits only.
        statistics: the npz of mean and std, for ``global``.
        tags: whether each target begins with the tag of its language.
        ctc_vocabulary: the characters of the transcripts.
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
    if tags:
        settings["prepend_tgt_lang_tag"] = True
    if ctc_vocabulary is not None:
        settings["ctc_vocab_filename"] = ctc_vocabulary.name
    if policy != "none":
        settings["specaugment"] = specaugment(policy)
    write_text(path, yaml.dump(settings, Dumper=_Plain, sort_keys=True))


class _Plain(yaml.SafeDumper):
    """Write a repeated list in full, without YAML's references, which are hard to edit by hand."""

    def ignore_aliases(self, data: object) -> bool:
        return True


TYPES: dict[str, Callable[[Any], bool]] = {
    "a text": lambda value: isinstance(value, str),
    "a whole number above 0": lambda value: type(value) is int and value > 0,
    "a number of at least 0": lambda value: type(value) in (int, float) and value >= 0,
    "true or false": lambda value: isinstance(value, bool),
    "a section": lambda value: isinstance(value, dict),
}
TRANSFORMS = ("feature_transforms", "transforms", "waveform_transforms", "dataset_transforms")
KEYS = {
    **dict.fromkeys(("audio_root", "vocab_filename", "speaker_set_filename", "speaker_emb_filename"), "a text"),
    "ctc_vocab_filename": "a text",
    **dict.fromkeys(("input_channels", "input_feat_per_channel", "sample_rate"), "a whole number above 0"),
    "sampling_alpha": "a number of at least 0",
    **dict.fromkeys(("shuffle", "use_audio_input", "standardize_audio"), "true or false"),
    **dict.fromkeys(("prepend_tgt_lang_tag", "prepend_bos_and_append_tgt_lang_tag"), "true or false"),
    **dict.fromkeys((*TRANSFORMS, "bpe_tokenizer", "pre_tokenizer", "vocoder", "features", "spoken_text"), "a section"),
    **dict.fromkeys(("global_cmvn", "utterance_cmvn", "specaugment"), "a section"),
}
"""Keys of fairseq's configurations and of ours, and what their values are."""
MASKS = ("freq_mask_N", "freq_mask_F", "time_mask_N", "time_mask_T", "time_mask_p", "time_warp_W", "mask_value")


def read(path: Path, command: str = "mla-prepare") -> dict[str, Any]:
    """Read a data configuration.

    Args:
        path: the yaml file.
        command: the command that prepares such a folder, for error messages.

    Raises:
        ValueError: the file is missing, or is not a yaml file of sections; the message names the place in it.
    """
    if fault := unusable(path):
        found = ", ".join(sorted(other.name for other in path.parent.glob("*.yaml"))) or "none"
        raise ValueError(
            f"{path} {fault} (configurations in this folder: {found}): "
            f"prepare the data with {command}, or correct --config-yaml"
        )
    text = read_text(path)
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a data configuration ({error}): correct it, or prepare the data again with {command}"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a data configuration: prepare the data again with {command}")
    return content


def check(path: Path, settings: Mapping[str, Any], known: Mapping[str, Collection[str]]) -> None:
    """Check the keys of a data configuration and the types of their values.

    Args:
        path: the configuration, for error messages.
        settings: its content.
        known: what fairseq has registered: the names of transforms under ``feature``, ``waveform`` and ``dataset``,
            and those of tokenizers under ``bpe`` and ``tokenizer``.

    Raises:
        ValueError: the first key that is misspelled, has a value of another type, or names what does not exist.
    """
    for key, value in settings.items():
        if (expected := KEYS.get(key)) is None:
            if near := difflib.get_close_matches(str(key), KEYS, 1, 0.85):
                raise ValueError(f"{path} has an unknown key ({key}): did you mean {near[0]}?")
        elif not TYPES[expected](value):
            raise ValueError(f"{path}: {key} is not {expected} ({value!r}): correct it")
    used = {name for key in TRANSFORMS for name in _transforms(path, settings, key, known)}
    if "global_cmvn" in used and not isinstance(settings.get("global_cmvn", {}).get("stats_npz_path"), str):
        raise ValueError(f"{path}: global_cmvn has no stats_npz_path: add it, such as stats_npz_path: gcmvn.npz")
    if "specaugment" in used:
        _check_masks(path, settings.get("specaugment"))
    for name in sorted((settings.keys() & known["feature"]) - used):
        log.warning("%s: the section %s has no effect, because no list of feature_transforms names it", path, name)
    for section, key in (("bpe_tokenizer", "bpe"), ("pre_tokenizer", "tokenizer")):
        name = settings.get(section, {}).get(key)
        if name is not None and name not in known[key]:
            raise ValueError(f"{path}: {section} is unknown ({name!r}): use one of {', '.join(sorted(known[key]))}")


def _transforms(path: Path, settings: Mapping[str, Any], key: str, known: Mapping[str, Collection[str]]) -> set[str]:
    """Return the names of the transforms that any set uses.

    Raises:
        ValueError: not lists of known names.
    """
    names = known["feature" if key == "transforms" else key.removesuffix("_transforms")]
    lists = {split: value for split, value in settings.get(key, {}).items() if value is not None}
    for split, used in lists.items():
        if not isinstance(used, list):
            raise ValueError(f"{path}: {key} of {split} is not a list ({used!r}): write it as [{used}]")
        if unknown := [name for name in used if not isinstance(name, str) or name not in names]:
            raise ValueError(
                f"{path}: {key} of {split} names an unknown transform ({unknown[0]!r}): "
                f"use {', '.join(sorted(names)) or 'none'}"
            )
    return {name for used in lists.values() for name in used}


def _check_masks(path: Path, section: Mapping[str, Any] | None) -> None:
    """Check the settings of SpecAugment, which masks nothing where they are missing or misspelled."""
    if section is None:
        raise ValueError(f"{path} has no section specaugment, but uses it: add the section, or remove the transform")
    for key, value in section.items():
        if key not in MASKS:
            raise ValueError(f"{path}: specaugment has an unknown key ({key}): use {', '.join(MASKS)}")
        if not (TYPES["a number of at least 0"](value) or (key == "mask_value" and type(value) in (float, type(None)))):
            raise ValueError(f"{path}: {key} of specaugment is not a number of at least 0 ({value!r}): correct it")
    for count, width in (("freq_mask_N", "freq_mask_F"), ("time_mask_N", "time_mask_T")):
        if section.get(count, 0) > 0 and not section.get(width, 0) > 0:
            raise ValueError(f"{path}: {count} of specaugment has no {width} above 0: add it, or set {count} to 0")
    if section.get("time_warp_W", 0) > 0 and importlib.util.find_spec("cv2") is None:
        raise ValueError(f"{path}: time_warp_W of specaugment needs OpenCV: set it to 0, or install opencv-python")
