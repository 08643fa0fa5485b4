"""The folder that every case starts from: small corpora, prepared data, models of two updates, logs and a recipe."""

import json
import shlex
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import soundfile
import torch
from fairseq.models.text_to_speech.hifigan import Generator

from mla_fairseq.data import prepare, prepare_speech
from mla_fairseq.data.joint import JointPreparation
from mla_fairseq.data.vocabulary import Vocabulary
from tests.data.voice import write_voice
from tests.programs import ROOT, Done, run
from tests.streaming.conftest import RATE, noise, write_corpus

SIZES = (
    "--encoder-embed-dim 16 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32 --encoder-attention-heads 2 "
    "--decoder-attention-heads 2"
)
TEXT = f"--encoder-layers 2 --decoder-layers 2 --conv-channels 16 --conv-out-channels 4 --dropout 0 {SIZES}"
WAIT_K = "--encoder-chunk-size 4 --fixed-pre-decision-ratio 3 --waitk-lagging 1-3 --energy-bias"
MODELS = {
    "offline": "--arch s2t_transformer_mla --attn-type softmax",
    "simul": f"--arch s2t_transformer_simul_mla --attn-type relu {WAIT_K} --source-length 30 --target-length-fixed 12",
}
SPEAKER = (
    "--task text_to_speech_mla --arch tts_transformer_mla --attn-type cosformer --criterion tacotron2_mla "
    "--length-predictor --bce-pos-weight 5 --decoder-embed-dim 16 --encoder-transformer-layers 2 "
    f"--decoder-transformer-layers 2 --prenet-dim 8 --postnet-conv-dim 8 --n-frames-per-step 4 {SIZES}"
)
SIZES_OF_RECIPE = [
    "encoder_layers: 1", "encoder_embed_dim: 16", "encoder_ffn_embed_dim: 16", "encoder_attention_heads: 2",
    "decoder_layers: 1", "decoder_embed_dim: 16", "decoder_ffn_embed_dim: 16", "decoder_attention_heads: 2",
    "conv_channels: 16",
]  # fmt: skip
UPDATES = "--optimizer adam --lr 0.01 --batch-size 6 --num-workers 0 --cpu --no-progress-bar --seed 1 --max-update 2"
JOINT = "--task speech_to_text_mla --config-yaml config_st.yaml"
JOINT_TRAINING = f"{JOINT} --criterion label_smoothed_cross_entropy --train-subset train_de_st,train_fr_st " + (
    f"--valid-subset dev_de_st,dev_fr_st --ignore-prefix-size 1 {TEXT} {MODELS['offline']}"
)
VOCODER = {
    "upsample_rates": [8, 8, 4], "upsample_kernel_sizes": [16, 16, 8], "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]], "model_in_dim": 80,
}  # fmt: skip
WHOLE = f"""
base: {ROOT}/configs/tiny.yaml
prepare: {{pairs: en-de, vocab_type: char, workers: 1}}
train: {{attn_type: cosformer, max_update: 3, warmup_updates: 1, max_tokens: 900, save_interval_updates: 1,
        log_interval: 1, num_workers: 0, {", ".join(SIZES_OF_RECIPE)}}}
generate: {{gen_subset: dev_st, beam: 2, max_len_a: 0, max_len_b: 10, num_workers: 0}}
"""
"""A recipe whose stages are run, every program in a forked child."""
RECIPE = """
base: base.yaml
title: A test
prepare: {pairs: en-de, vocab_type: char}
train: {attn_type: cosformer, max_update: 3, lr: 0.01, arch: s2t_transformer_mla_s}
generate: {beam: 2, max_len_b: 10}
"""
BASE = """
prepare: {data: "${DATA}", task: st, cmvn: global}
train: {data: "${prepare.output}/en-de", config_yaml: config_st.yaml, train_subset: train_st, valid_subset: dev_st,
        task: speech_to_text_mla, criterion: label_smoothed_cross_entropy, max_tokens: 4000, optimizer: adam}
average: {last: 2}
generate: {gen_subset: dev_st, max_tokens: 1000}
"""

KINDS = {
    "data/config_st.yaml": "config",
    "data/train_st.tsv": "manifest",
    "data/dev_st.tsv": "manifest",
    "data/fbank80.zip": "archive",
    "data/gcmvn.npz": "statistics",
    "data/spm_unigram36_st.model": "pieces",
    "data/spm_unigram36_st.txt": "dictionary",
    "speech/config.yaml": "config",
    "speech/train.tsv": "manifest",
    "speech/test.tsv": "manifest",
    "speech/mel80.zip": "archive",
    "speech/gcmvn.npz": "statistics",
    "speech/dict.txt": "dictionary",
    "joint/config_st.yaml": "config",
    "joint/train_fr_st.tsv": "manifest",
    "joint/dev_fr_st.tsv": "manifest",
    "joint/en-fr/fbank80.zip": "archive",
    "joint/gcmvn.npz": "statistics",
    "joint/spm_unigram38_st.model": "pieces",
    "joint/spm_unigram38_st.txt": "dictionary",
    "models/joint.pt": "checkpoint",
    "vocoder/generator.pt": "generator",
    "vocoder/settings.json": "settings",
    "runs/data/noise/en-de/train_st.tsv": "manifest",
    "runs/data/noise/en-de/config_st.yaml": "config",
    "runs/data/noise/en-de/fbank80.zip": "archive",
    "runs/data/noise/en-de/gcmvn.npz": "statistics",
    "runs/whole/checkpoints/checkpoint_last.pt": "checkpoint",
    "runs/whole/checkpoint_average.pt": "checkpoint",
    "runs/whole/train.log": "log",
    "runs/whole/generate-dev_st.txt": "log",
    "runs/whole/.stage-train.json": "settings",
    "models/offline.pt": "checkpoint",
    "models/second.pt": "checkpoint",
    "models/simul.pt": "checkpoint",
    "models/tts.pt": "checkpoint",
    "corpus/en-de/data/train/txt/train.yaml": "listing",
    "corpus/en-de/data/train/txt/train.de": "lines",
    "corpus/en-de/data/train/wav/train0.wav": "audio",
    "corpus/en-de/data/dev/wav/dev1.wav": "audio",
    "corpus/en-de/data/dev/txt/dev.yaml": "listing",
    "corpus/en-de/data/dev/txt/dev.de": "lines",
    "corpus/en-fr/data/train/txt/train.fr": "lines",
    "corpus/en-fr/data/dev/txt/dev.yaml": "listing",
    "voice/metadata.csv": "lines",
    "voice/wavs/w03.wav": "audio",
    "live/one.wav": "audio",
    "live/one.npy": "array",
    "live/names.txt": "lines",
    "live/source": "lines",
    "live/target": "lines",
    "logs/k1/instances.log": "instances",
    "talks/instances.log": "instances",
    "talks/dev.segments.yaml": "listing",
    "talks/dev.segments.de": "lines",
    "logs/points.tsv": "points",
    "logs/train.log": "log",
    "logs/generate.txt": "log",
    "recipe/recipe.yaml": "recipe",
    "recipe/base.yaml": "recipe",
}
"""The files that are mutated, and the kind of each."""


def make_world(folder: Path) -> Path:
    """Make the folder; about a minute of CPU."""
    folder.mkdir()
    write_corpora(folder)
    train_models(folder)
    write_live(folder / "live")
    write_logs(folder)
    write_talks(folder / "talks")
    (folder / "recipe").mkdir()
    (folder / "recipe" / "recipe.yaml").write_text(RECIPE)
    (folder / "recipe" / "base.yaml").write_text(BASE)
    (folder / "recipe" / "whole.yaml").write_text(WHOLE)
    write_vocoder(folder / "vocoder")
    return folder


def write_corpora(folder: Path) -> None:
    pair = write_corpus(folder / "corpus" / "en-de")
    (pair / "data" / "tst-COMMON").rename(pair / "data" / "dev")
    for path in sorted((pair / "data" / "dev").glob("*/tst-COMMON*")):
        path.rename(path.with_name(path.name.replace("tst-COMMON", "dev")))
    listing = pair / "data" / "dev" / "txt" / "dev.yaml"
    listing.write_text(listing.read_text().replace("tst-COMMON", "dev"))
    vocabulary = Vocabulary("unigram", 36)
    prepare.prepare(pair, folder / "data", prepare.Options(vocabulary=vocabulary, cmvn="global", specaugment="none"))
    french = Path(shutil.copytree(pair, folder / "corpus" / "en-fr"))
    for path in sorted(french.glob("data/*/txt/*.de")):
        path.rename(path.with_suffix(".fr"))
    options = prepare.Options(vocabulary=Vocabulary("unigram", 38), cmvn="global", specaugment="none")
    JointPreparation([pair, french], folder / "joint", options).run()
    write_voice(folder / "voice", clips=16)
    prepare_speech.prepare(folder / "voice", folder / "speech", prepare_speech.Options(dev=2, test=2))


def train_models(folder: Path) -> None:
    (folder / "models").mkdir()
    for name, flags in MODELS.items():
        train(folder, f"{folder}/data {text_task('train')} {TEXT} {flags}", name)
    train(folder, f"{folder}/data {text_task('train')} {TEXT} {MODELS['offline']} --seed 2", "second")
    train(folder, f"{folder}/joint {JOINT_TRAINING}", "joint")
    train(folder, f"{folder}/speech {SPEAKER} --train-subset train --valid-subset dev", "tts")


def text_task(program: str) -> str:
    """Return the flags of the task and, for training, of the criterion."""
    task = "--task speech_to_text_mla --config-yaml config_st.yaml"
    criterion = "--criterion label_smoothed_cross_entropy --label-smoothing 0.1"
    return f"{task} {criterion} --train-subset train_st --valid-subset dev_st" if program == "train" else task


def train(folder: Path, flags: str, name: str) -> None:
    done = run("fairseq-train", shlex.split(f"{flags} {UPDATES} --save-dir {folder}/models/{name}"))
    assert done.code == 0, done.err
    shutil.move(folder / "models" / name / "checkpoint_last.pt", folder / "models" / f"{name}.pt")
    shutil.rmtree(folder / "models" / name)
    if name == "offline":
        (folder / "logs").mkdir()
        (folder / "logs" / "train.out").write_text(done.err + done.out)


def write_vocoder(folder: Path) -> None:
    """Write a HiFi-GAN generator that was not trained."""
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(VOCODER))
    torch.manual_seed(1)
    torch.save({"generator": Generator(VOCODER).state_dict()}, folder / "generator.pt")


def write_live(folder: Path) -> None:
    """Write what is translated: a recording, features, and the lists of names."""
    folder.mkdir()
    soundfile.write(folder / "one.wav", noise(1.4, 3), RATE)
    np.save(folder / "one.npy", np.random.default_rng(1).normal(10, 3, (90, 80)).astype(np.float32))
    (folder / "names.txt").write_text(f"{folder}/one.npy\n{folder}/one.npy\n")
    (folder / "source").write_text(f"{folder}/one.wav\n")
    (folder / "target").write_text("ein haus am see\n")


def write_logs(folder: Path) -> None:
    (folder / "logs" / "k1").mkdir()
    lines = [
        {"index": i, "prediction": "ein haus am see", "delays": [300.0, 600.0, 1400.0, 1400.0],
         "elapsed": [310.0, 650.0, 1500.0, 1510.0], "prediction_length": 4, "reference": "ein haus am wald",
         "source": [f"{folder}/live/one.wav", "samplerate: 16000 Hz"], "source_length": 1400.0}
        for i in range(4)
    ]  # fmt: skip
    (folder / "logs" / "k1" / "instances.log").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    rows = [f"softmax\t{k}\t{10 + k}.5\t{40 + k}.0\t{900 + 200 * k}.0\t20.0" for k in (1, 3, 5)]
    (folder / "logs" / "points.tsv").write_text("\n".join(["system\tk\tbleu\tchrf\tal\toffline_bleu", *rows]) + "\n")
    (folder / "logs" / "train.log").write_text(training_log())
    (folder / "logs" / "generate.txt").write_text("".join(f"D-{i}\t-0.5\tein haus am see\n" for i in range(5)))


def write_talks(folder: Path) -> None:
    """Write a log of two recordings of 6 s, their segments of 2 s, and references."""
    folder.mkdir()
    words = "ein haus am see liegt still".split()  # noqa: SIM905
    delays = [500.0, 1200.0, 2600.0, 3300.0, 4700.0, 5400.0]
    lines = [
        {"index": i, "prediction": " ".join(words), "delays": delays, "elapsed": [time + 40 * i for time in delays],
         "reference": " ".join(words), "source": [f"{folder}/{wav}.wav"], "source_length": 6000.0}
        for i, wav in enumerate("ab")
    ]  # fmt: skip
    (folder / "instances.log").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    rows = [f"- {{wav: {wav}.wav, offset: {start}.0, duration: 2.0}}\n" for wav in "ab" for start in (0, 2, 4)]
    (folder / "dev.segments.yaml").write_text("".join(rows))
    (folder / "dev.segments.de").write_text("".join(f"{' '.join(words[i : i + 2])}\n" for i in (0, 2, 4) * 2))


def training_log() -> str:
    """Return a log of ``fairseq-train --log-format json``."""
    start, lines = datetime(2030, 1, 1, 12), []
    for update in range(10, 60, 10):
        stats = {"epoch": 1, "update": update / 8, "loss": 9 - update / 10, "nll_loss": 8 - update / 10, "wps": 90.0}
        stats |= {"ups": 2.0, "ppl": 4.0, "num_updates": update}
        values = json.dumps({key: str(value) for key, value in stats.items()})
        when = start + timedelta(seconds=update)
        lines.append(f"{when:%Y-%m-%d %H:%M:%S} | INFO | train_inner | {values}\n")
    return "".join(lines)


__all__ = ["JOINT", "JOINT_TRAINING", "KINDS", "SPEAKER", "TEXT", "UPDATES", "Done", "make_world", "text_task"]
