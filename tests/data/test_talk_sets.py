"""Training sets whose sentences are cut out of talks: reproducible, normalised afterwards, and nothing else changes."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("fairseq")

from mla_fairseq import plugin  # noqa: F401 -- registers the architectures
from mla_fairseq.checkpoints import load_checkpoint
from mla_fairseq.data.prepare import Options, prepare
from mla_fairseq.data.vocabulary import Vocabulary
from mla_fairseq.errors import UserError
from mla_fairseq.tasks.features import CheckedSpeechToTextDataset
from mla_fairseq.tasks.speech_to_text_mla import SpeechToTextMLATask
from mla_fairseq.tasks.talks import LONGEST, TalkDataset
from tests.programs import run

OPTIONS = Options(vocabulary=Vocabulary("char"), specaugment="ld", cmvn="global")
ALL = {"context_ratio": 0.8, "lost_onset_ratio": 0.2, "noise_ratio": 0.5}


@pytest.fixture
def folder(pair: Path) -> Path:
    prepare(pair, None, OPTIONS)
    return pair


def task(folder: Path, **flags: object) -> SpeechToTextMLATask:
    return SpeechToTextMLATask.setup_task(Namespace(data=str(folder), config_yaml="config_st.yaml", seed=1, **flags))


def load(folder: Path, split: str = "train_st", **flags: object):
    (loaded := task(folder, **flags)).load_dataset(split)
    return loaded.datasets[split]


def batches(folder: Path, workers: int, epoch: int = 1) -> list[dict]:
    loaded = task(folder, max_source_positions=6000, max_target_positions=1024, **ALL)
    loaded.load_dataset("train_st")
    iterator = loaded.get_batch_iterator(
        loaded.dataset("train_st"), max_tokens=2000, num_workers=workers, epoch=epoch, seed=1
    )
    return list(iterator.next_epoch_itr(shuffle=False))


def test_the_number_of_workers_changes_nothing_and_the_epoch_does(folder: Path) -> None:
    alone, helped, later = batches(folder, 0), batches(folder, 2), batches(folder, 0, epoch=2)
    assert len(alone) == len(helped) > 1
    for one, other in zip(alone, helped, strict=True):
        for name in ("src_tokens", "src_lengths", "readable_frames"):
            assert torch.equal(one["net_input"][name], other["net_input"][name])
        assert torch.equal(one["speech"], other["speech"]) and torch.equal(one["speech_end"], other["speech_end"])
    assert not torch.equal(alone[0]["net_input"]["src_lengths"], later[0]["net_input"]["src_lengths"])


def test_a_batch_keeps_what_belongs_together(folder: Path) -> None:
    dataset = load(folder, **ALL)
    items = [dataset[index] for index in (3, 0, 7)]
    batch = dataset.collater(items)
    assert "order" not in batch
    for row, index in enumerate(batch["id"].tolist()):
        item = next(item for item in items if item.index == index)
        length = int(batch["net_input"]["src_lengths"][row])
        assert length == len(item.source) == len(item.speech)
        assert torch.equal(batch["net_input"]["src_tokens"][row, :length], item.source)
        assert torch.equal(batch["speech"][row, :length], item.speech) and not batch["speech"][row, length:].any()
        assert int(batch["speech_end"][row]) == item.end <= length
        assert int(batch["net_input"]["readable_frames"][row]) == item.readable <= length
    assert dataset.num_tokens(0) == dataset.n_frames[0] + LONGEST


def test_only_the_sentence_is_translated(folder: Path) -> None:
    plain, cut = load(folder), load(folder, context_ratio=1.0)
    assert all(torch.equal(plain[index].target, cut[index].target) for index in range(len(plain)))


def test_others_are_of_the_same_talk(folder: Path) -> None:
    dataset, asked = load(folder, context_ratio=1.0), set()
    for epoch in range(1, 8):
        dataset.set_epoch(epoch)
        dataset.edges.clear()
        dataset[4]
        asked |= set(dataset.edges)
    assert {dataset.ids[row].rpartition("_")[0] for row in asked} == {dataset.ids[4].rpartition("_")[0]}


def test_features_are_normalised_afterwards(folder: Path) -> None:
    """Noise over all changes normalised features as it changes the powers, not their normalised logarithms."""
    config = yaml.safe_load((folder / "config_st.yaml").read_text())
    config["feature_transforms"] = {"*": ["global_cmvn"]}
    (folder / "config_st.yaml").write_text(yaml.safe_dump(config))
    stats = np.load(folder / "gcmvn.npz")
    plain, noisy = load(folder), load(folder, noise_ratio=1.0)
    for index in range(4):
        before, after = (x[index].source.numpy() * stats["std"] + stats["mean"] for x in (plain, noisy))
        assert before.shape == after.shape and (after > before - 1e-3).all()
        # the test's speech is noise of -24 dB: other noise adds a little to quiet bins
        assert np.median(after - before) < 0.1


def test_a_ratio_of_0_changes_nothing(folder: Path) -> None:
    plain, zero = load(folder), load(folder, context_ratio=0.0, lost_onset_ratio=0.0, noise_ratio=0.0)
    assert type(zero) is type(plain) is CheckedSpeechToTextDataset
    assert all(torch.equal(plain[index].source, zero[index].source) for index in range(len(plain)))
    assert zero.collater([zero[0]]).keys() == plain.collater([plain[0]]).keys()


def test_only_training_sets_are_changed(folder: Path) -> None:
    assert type(load(folder, **ALL)) is TalkDataset
    assert type(load(folder, "dev_st", **ALL)) is CheckedSpeechToTextDataset
    (decoding := task(folder, **ALL)).evaluates = True  # of fairseq's commands only training has no --path
    decoding.load_dataset("train_st")
    assert type(decoding.datasets["train_st"]) is CheckedSpeechToTextDataset


def test_features_of_another_tool_are_refused(folder: Path) -> None:
    config = yaml.safe_load((folder / "config_st.yaml").read_text()) | {"input_feat_per_channel": 40}
    (folder / "config_st.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="40"):
        load(folder, **ALL)


SMALL = (
    "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 --conv-channels 16 "
    "--encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 --decoder-attention-heads 2 "
    "--optimizer adam --lr 0.01 --max-tokens 2000 --num-workers 0 --cpu --no-progress-bar --max-update 4 "
    "--required-batch-size-multiple 1 --train-subset train_st --valid-subset dev_st --config-yaml config_st.yaml"
)
SIMUL = "--arch s2t_transformer_simul_mla --fixed-pre-decision-ratio 3 --source-length 250"
BOUNDARY = "--criterion label_smoothed_cross_entropy_mla --boundary-weight 1"


def train(folder: Path, save: Path, flags: str):
    command = ["fairseq-train", folder, "--task", "speech_to_text_mla", SMALL.split(), "--save-dir", save]
    return run(*command, flags.split())


def test_a_training_with_everything_and_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    ratios = "--context-ratio 0.8 --lost-onset-ratio 0.2 --noise-ratio 0.5"
    done = train(folder, tmp_path / "model", f"{SIMUL} {BOUNDARY} {ratios}")
    assert done.code == 0, done.err
    assert "boundary_loss" in done.out + done.err
    last, linear, mean = (tmp_path / "model" / name for name in ("checkpoint_last.pt", "linear.pt", "average.pt"))
    done = run("mla-linearize", last, "--data", folder, "--encoder-attn-type", "elu", "--output", linear)
    assert done.code == 0, done.err
    done = run("mla-average", "--inputs", last, "--output", mean)
    assert done.code == 0, done.err
    flags = ["--task", "speech_to_text_mla", "--config-yaml", "config_st.yaml", "--gen-subset", "dev_st", "--cpu"]
    for path in (last, linear, mean):
        assert "encoder.boundary.linear.weight" in load_checkpoint(path)["model"]
        done = run("fairseq-generate", folder, flags, "--path", path, "--num-workers", 0)
        assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (f"{SIMUL} --context-ratio 1.5", "--context-ratio is 1.5: give a number from 0 to 1"),
        (f"{SIMUL} {BOUNDARY}", "--boundary-weight learns from what follows a sentence: add --context-ratio 0.8"),
        ("--arch s2t_transformer --context-ratio 0.5", "--context-ratio 0.5 needs a model of mla_fairseq"),
    ],
)
def test_flags_that_do_not_fit_are_refused(folder: Path, tmp_path: Path, flags: str, message: str) -> None:
    done = train(folder, tmp_path, flags)
    assert done.code == 1
    assert message in done.last_line
