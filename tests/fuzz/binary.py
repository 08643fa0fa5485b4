"""Wrong contents of files that are not text: archives, arrays, statistics, audio, SentencePiece models, checkpoints."""

import argparse
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import sentencepiece
import soundfile
import torch

from tests.fuzz.values import VALUES

Apply = Callable[[Random, Path], object]
Change = Callable[[np.ndarray], np.ndarray]


class Payload:
    """A pickled object that makes a folder when it is loaded."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("executed",)


def one_nan(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flat[array.size // 2] = np.nan
    return array


ARRAYS: dict[str, Change] = {
    "a NaN": one_nan,
    "infinite": lambda array: array * np.inf,
    "float64": lambda array: array.astype(np.float64),
    "integers": lambda array: array.astype(np.int16),
    "complex": lambda array: array.astype(np.complex64),
    "text": lambda array: array.astype(str),
    "fewer bins": lambda array: array[..., :-1],
    "one dimension": lambda array: array.reshape(-1),
    "three dimensions": lambda array: array[None],
    "transposed": lambda array: array.T,
    "no frame": lambda array: array[:0],
    "one frame less": lambda array: array[:-1],
    "objects": lambda array: np.array([Payload()], dtype=object),
    "huge": lambda array: array * 1e30,
}


def to_bytes(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def change_member(change: Change) -> Apply:
    """Return what replaces one array of an archive by one of the same number of bytes, or as near as that is."""

    def apply(random: Random, path: Path) -> str:
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
            starts = {info.filename: info.header_offset for info in archive.infolist()}
        name = random.choice(sorted(content))
        new = to_bytes(change(np.load(io.BytesIO(content[name]))))
        data, size = bytearray(path.read_bytes()), len(content[name])
        place = data.index(content[name], starts[name])
        data[place : place + size] = new[:size].ljust(size, b"\0")  # places in the manifests stay valid
        path.write_bytes(data)
        return name

    return apply


def compress(_: Random, path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


ARCHIVE: dict[str, Apply] = {name: change_member(change) for name, change in ARRAYS.items()} | {"compressed": compress}


def change_array(change: Change) -> Apply:
    return lambda _, path: path.write_bytes(to_bytes(change(np.load(path)))) and None


ARRAY: dict[str, Apply] = {name: change_array(change) for name, change in ARRAYS.items()}


def change_statistics(change: Callable[[dict], object]) -> Apply:
    def apply(_: Random, path: Path) -> None:
        with np.load(path) as file:
            values = dict(file)
        change(values)
        np.savez(path, **values)

    return apply


STATISTICS: dict[str, Apply] = {
    **{
        f"{name}: {key}": change_statistics(
            lambda values, key=key, change=change: values.update({key: change(values[key])})
        )
        for key in ("mean", "std")
        for name, change in ARRAYS.items()
        if name not in ("float64", "no frame")
    },
    "zero deviation": change_statistics(lambda values: values["std"].__setitem__(3, 0)),
    "negative deviation": change_statistics(lambda values: values["std"].__setitem__(3, -1)),
    "without mean": change_statistics(lambda values: values.pop("mean")),
    "without deviation": change_statistics(lambda values: values.pop("std")),
    "an array alone": lambda _, path: path.write_bytes(to_bytes(np.zeros(80, np.float32))) and None,
}  # fmt: skip


def train_pieces(size: int) -> Apply:
    """Return what replaces a SentencePiece model by one of other texts."""

    def apply(_: Random, path: Path) -> None:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["qu xy zz", "yx qq uz", "zu qx"] * 20), model_writer=model, vocab_size=size,
            model_type="char", hard_vocab_limit=False, pad_id=1, unk_id=3, bos_id=0, eos_id=2, minloglevel=2,
        )  # fmt: skip
        path.write_bytes(model.getvalue())

    return apply


PIECES: dict[str, Apply] = {"of other texts": train_pieces(10), "of no text": train_pieces(5)}

HARMLESS = {
    "24 bits", "32-bit floats", "FLAC", "another rate", "half", "loud floats", "silence", "ten samples",
    "as in 2020", "half precision", "huge weight", "huge: mean", "huge: std",
    "mechanism", "one frame less", "option", "option of the criterion", "option of the task",
    "other dropout", "weight of integers", "without optimizer",
}  # fmt: skip
"""What changes a result and is no mistake that a program could see."""


def change_audio(change: Callable[[np.ndarray, int], tuple[np.ndarray, int]], **form: str) -> Apply:
    def apply(_: Random, path: Path) -> None:
        samples, rate = change(*soundfile.read(path, dtype="float32"))
        soundfile.write(path, samples, rate, **{"format": "WAV", **form})

    return apply


def lie(place: int, value: int) -> Apply:
    """Return what overwrites four bytes of a wav file's header."""

    def apply(_: Random, path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[place : place + 4] = struct.pack("<I", value)
        path.write_bytes(data)

    return apply


AUDIO: dict[str, Apply] = {
    "another rate": change_audio(lambda samples, rate: (samples, 44100)),
    "a rate of 1 Hz": change_audio(lambda samples, rate: (samples, 1)),
    "two channels": change_audio(lambda samples, rate: (np.stack([samples, samples], 1), rate)),
    "no samples": change_audio(lambda samples, rate: (samples[:0], rate)),
    "ten samples": change_audio(lambda samples, rate: (samples[:10], rate)),
    "half": change_audio(lambda samples, rate: (samples[: len(samples) // 2], rate)),
    "silence": change_audio(lambda samples, rate: (samples * 0, rate)),
    "a NaN": change_audio(lambda samples, rate: (one_nan(samples), rate), subtype="FLOAT"),
    "loud floats": change_audio(lambda samples, rate: (samples * 1e30, rate), subtype="FLOAT"),
    "32-bit floats": change_audio(lambda samples, rate: (samples, rate), subtype="FLOAT"),
    "24 bits": change_audio(lambda samples, rate: (samples, rate), subtype="PCM_24"),
    "FLAC": change_audio(lambda samples, rate: (samples, rate), format="FLAC"),
    "a length of 4 GB": lie(40, 2**32 - 1),
    "a length of 0": lie(40, 0),
    "a rate of 0": lie(24, 0),
    "no channel": lie(22, 0x3E800000),
}


def change_checkpoint(change: Callable[[Random, dict], object]) -> Apply:
    def apply(random: Random, path: Path) -> object:
        state = torch.load(path, weights_only=False)
        told = change(random, state)
        torch.save(state, path)
        return told

    return apply


def change_weight(change: Callable[[torch.Tensor], torch.Tensor | None]) -> Apply:
    """Return what changes one weight of a checkpoint, or removes it."""

    def apply(random: Random, state: dict) -> str:
        name = random.choice([name for name, weight in state["model"].items() if weight.dim() and weight.numel() > 1])
        new = change(state["model"][name])
        if new is None:
            del state["model"][name]
        else:
            state["model"][name] = new
        return name

    return change_checkpoint(apply)


def poison(weight: torch.Tensor) -> torch.Tensor:
    weight = weight.float().clone()
    weight.view(-1)[weight.numel() // 2] = torch.nan
    return weight


def set_option(section: str, key: str | None = None, values: list = VALUES) -> Apply:
    """Return what gives an option of a section of the configuration an odd value."""

    def apply(random: Random, state: dict) -> str:
        options = state["cfg"][section]
        table = vars(options) if isinstance(options, argparse.Namespace) else options
        name = key or random.choice(sorted(table))
        table[name] = value = random.choice(values)
        return f"{section}.{name}={str(value)[:30]!r}"

    return change_checkpoint(apply)


def as_args(_: Random, state: dict) -> None:
    """Store the options as fairseq did in 2020."""
    state["args"] = state["cfg"]["model"]
    state["cfg"] = None


def halve(_: Random, state: dict) -> None:
    for name, weight in state["model"].items():
        state["model"][name] = weight.half() if weight.is_floating_point() else weight


def change_generator(change: Callable[[torch.Tensor], torch.Tensor | None]) -> Apply:
    """Return what changes one weight of a vocoder."""
    apply = change_weight(change)

    def change_file(random: Random, path: Path) -> object:
        torch.save({"model": torch.load(path, weights_only=True)["generator"]}, path)
        name = apply(random, path)
        torch.save({"generator": torch.load(path, weights_only=False)["model"]}, path)
        return name

    return change_file


GENERATOR: dict[str, Apply] = {
    "NaN weight": change_generator(poison),
    "weight of another shape": change_generator(lambda weight: weight[:-1]),
    "weight missing": change_generator(lambda weight: None),
    "weight of text": change_generator(lambda weight: "x"),
    "a list": lambda _, path: torch.save({"generator": [1]}, path),
    "runs code": lambda _, path: torch.save({"generator": Payload()}, path),
}


def replace(state: dict, **values: object) -> None:
    state.update(values)


ARCHITECTURES = ["transformer", "wav2vec2", "fconv", "s2t_transformer", "x", "tts_transformer_mla", "hubert", "lstm"]
SIZES = [0, -1, 10**9, 7, "16", 3.5, None]
CHECKPOINT: dict[str, Apply] = {
    "NaN weight": change_weight(poison),
    "weight of another shape": change_weight(lambda weight: weight[:-1]),
    "weight missing": change_weight(lambda weight: None),
    "weight of text": change_weight(lambda weight: "x"),
    "weight of integers": change_weight(lambda weight: (weight * 100).long()),
    "huge weight": change_weight(lambda weight: weight * 1e30),
    "half precision": change_checkpoint(halve),
    "more weights": change_checkpoint(lambda _, state: state["model"].update(x=torch.zeros(2))),
    "no weights": change_checkpoint(lambda _, state: replace(state, model={})),
    "weights as a list": change_checkpoint(lambda _, state: replace(state, model=[1])),
    "without options": change_checkpoint(lambda _, state: replace(state, cfg=None)),
    "another architecture": set_option("model", "_name", ARCHITECTURES),
    "another task": set_option("task", "_name", ["translation", "x", "text_to_speech_mla", "speech_to_text", None]),
    "layers": set_option("model", "encoder_layers", SIZES),
    "heads": set_option("model", "decoder_attention_heads", SIZES),
    "width": set_option("model", "encoder_embed_dim", SIZES),
    "mechanism": set_option("model", "attn_type", ["cosformer", "relu", "x", "", None, 3]),
    "option": set_option("model"),
    "option of the task": set_option("task"),
    "option of the criterion": set_option("criterion"),
    "other dropout": set_option("model", "dropout", [0.2]),
    "without history": change_checkpoint(lambda _, state: replace(state, optimizer_history=[])),
    "without optimizer": change_checkpoint(lambda _, state: replace(state, last_optimizer_state=None)),
    "as in 2020": change_checkpoint(as_args),
    "runs code": change_checkpoint(lambda _, state: replace(state, x=Payload())),
    "a list": lambda _, path: torch.save([1, 2], path),
}  # fmt: skip
