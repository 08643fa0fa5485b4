"""A small corpus of random features, models over it in this process, and fairseq's commands in a forked one."""

import dataclasses
import functools
import shlex
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fairseq import options, tasks
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask

from mla_fairseq import plugin  # noqa: F401 -- registers the architectures
from mla_fairseq.attention import available_attention, build_attention
from mla_fairseq.data import archive, ctc_vocabulary, manifest
from tests.programs import Done, run

FEATURES = 8
WORDS = [f"w{i:02d}" for i in range(28)]
SIZES = shlex.split(
    "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 16 --decoder-embed-dim 16 --conv-channels 16 "
    "--conv-out-channels 4 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 "
    "--decoder-attention-heads 2"
)
TRAINING = shlex.split(
    "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --optimizer adam --lr 0.01 --batch-size 4 "
    "--num-workers 0 --cpu --disable-validation --no-progress-bar --seed 1 "
    "--required-batch-size-multiple 1"  # fairseq leaves out a last batch whose size is no multiple of this one
)
CTC_OF_BOTH = "--criterion label_smoothed_cross_entropy_mla --ctc-weight 1 --ctc-text both"
"""Flags of a model with CTC outputs for the transcript and the translation."""
SOFTMAX = "softmax"
LINEAR = [name for name in available_attention() if name != SOFTMAX]
IN_ORDER = frozenset(name for name in LINEAR if build_attention(name, 4).in_order)
SITES_OF = {name: ("decoder",) if name in IN_ORDER else ("encoder", "decoder", "cross") for name in LINEAR}
"""Sites that a mechanism can have in an offline model; with a chunked encoder, one that fades can be there too."""
EVERYWHERE = {name: f"--{'decoder-' if name in IN_ORDER else ''}attn-type {name}" for name in [SOFTMAX, *LINEAR]}
STREAMING = EVERYWHERE | {name: f"--encoder-attn-type {name} --decoder-attn-type {name}" for name in IN_ORDER}
MIXED = {f"{name}-in-{site}": f"--{site}-attn-type {name}" for name in LINEAR for site in SITES_OF[name]}
"""Flags that put a mechanism at every site that can have it, or at one site with softmax at the others."""


def write_corpus(folder: Path, sizes: dict[str, int], words: list[str] = WORDS, bins: int = FEATURES) -> Path:
    """Write a data folder as ``mla-prepare`` does: one zip, a manifest for each split, a dictionary, a yaml file.

    Each word has its own features, so that a model has something to learn, and is one letter of the transcript, which
    fits the states that CTC has.
    """
    rng = np.random.default_rng(7)
    spoken = rng.normal(size=(len(words), 8, bins)).astype(np.float32)
    alphabet = [chr(ord("\u0430") + word) for word in range(len(words))]  # Cyrillic, which has enough letters
    zip_path = folder / "features.zip"
    texts = {}
    with archive.Writer(zip_path) as writer:
        for split, size in sizes.items():
            for i in range(size):
                spelled = rng.integers(len(words), size=rng.integers(2, 9))
                noise = rng.normal(size=(rng.integers(8), bins)).astype(np.float32)
                frames = np.concatenate([*spoken[spelled], noise])
                writer.add(f"{split}_{i}.npy", frames)
                letters = "".join(alphabet[word] for word in spelled)
                texts[f"{split}_{i}"] = (len(frames), " ".join(words[word] for word in spelled), letters)
    places = archive.members(zip_path)
    for split, size in sizes.items():
        rows = []
        for name in (f"{split}_{i}" for i in range(size)):
            offset, length = places[f"{name}.npy"]
            n_frames, text, letters = texts[name]
            rows.append(
                manifest.Row(name, f"{zip_path.name}:{offset}:{length}", n_frames, text, "s", letters, "a", "b")
            )
        manifest.write(folder / f"{split}.tsv", rows)
    (folder / "dict.txt").write_text("".join(f"{word} 1\n" for word in words), encoding="utf-8")
    # fairseq's task reads relative paths from the folder in which it was started
    config = {"audio_root": str(folder), "vocab_filename": "dict.txt", "input_feat_per_channel": bins}
    config["ctc_vocab_filename"] = "ctc_vocab.txt"
    ctc_vocabulary.write(folder / "ctc_vocab.txt", ctc_vocabulary.characters(alphabet))
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the data folder: 16 utterances to train on, 6 to translate, 28 words."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 16, "valid": 4, "dev": 6})


def parse(corpus: Path, arch: str, flags: str = "") -> Namespace:
    """Return the options of ``fairseq-train`` as fairseq parses them, with reduced sizes."""
    command = [str(corpus), "--task", "speech_to_text", "--arch", arch, *SIZES, *TRAINING, *flags.split()]
    return options.parse_args_and_arch(options.get_training_parser(), command)


@dataclasses.dataclass(frozen=True)
class Built:
    """A model and the task that it was built for."""

    model: BaseFairseqModel
    task: FairseqTask
    args: Namespace

    def batch(self, *indices: int, split: str = "train") -> dict:
        """Return a batch of utterances of a split, longest first; without indices all of them."""
        if split not in self.task.datasets:
            self.task.load_dataset(split)
        dataset = self.task.dataset(split)
        return dataset.collater([dataset[i] for i in indices or range(len(dataset))])


Build = Callable[..., Built]


@pytest.fixture(scope="session")
def build(corpus: Path) -> Build:
    """``build(arch, flags)``: a model of that architecture, the same random numbers whenever names are the same."""

    def build(arch: str = "s2t_transformer_mla", flags: str = "", seed: int = 0) -> Built:
        args = parse(corpus, arch, flags)
        torch.manual_seed(seed)
        task = tasks.setup_task(args)
        return Built(task.build_model(args), task, args)

    return build


@pytest.fixture(scope="session")
def train(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``train(flags, arch=...)``: the checkpoint that a few updates of ``fairseq-train`` leave, made once."""

    @functools.cache
    def train(flags: str = "", arch: str = "s2t_transformer_mla", task: str = "speech_to_text_mla") -> Path:
        folder = tmp_path_factory.mktemp("model")
        command = [corpus, "--task", task, "--arch", arch, *SIZES, *TRAINING, "--max-update", 6]
        done = run("fairseq-train", command, "--save-dir", folder, shlex.split(flags))
        assert done.code == 0, done.err
        return folder / "checkpoint_last.pt"

    return train


@pytest.fixture(scope="session")
def both(train: Callable[..., Path]) -> Path:
    """Return the checkpoint of a model with both CTC outputs."""
    return train(CTC_OF_BOTH)


@pytest.fixture(scope="session")
def generate(corpus: Path) -> Callable[..., Done]:
    """``generate(path, *flags)``: ``fairseq-generate --beam 5`` of the dev set."""

    def generate(path: object, *flags: object, task: str = "speech_to_text_mla") -> Done:
        return run(
            "fairseq-generate",
            [corpus, "--task", task, "--gen-subset", "dev", "--path", path, "--beam", 5, "--max-len-b", 15],
            ["--cpu", "--num-workers", 0, "--required-batch-size-multiple", 1],
            *flags,
        )

    return generate
