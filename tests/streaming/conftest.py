"""A prepared corpus of noise with texts, and simultaneous models for it with random weights."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fairseq import checkpoint_utils, options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from mla_fairseq import plugin  # noqa: F401 -- registers the architectures
from mla_fairseq.data.joint import JointPreparation
from mla_fairseq.data.prepare import Options, prepare
from mla_fairseq.data.vocabulary import Vocabulary
from mla_fairseq.streaming import Translator
from mla_fairseq.streaming.words import begins_word

RATE = 16_000
SECONDS = {"train": [0.5] * 12, "tst-COMMON": [3.1, 0.7, 2.26, 1.5, 0.03]}
WORDS = "ein haus am see liegt still und der wald rauscht leise um mitternacht bei vollmond oder wind".split()  # noqa: SIM905
SIZES = (
    "--encoder-layers 2 --decoder-layers 2 --encoder-embed-dim 16 --conv-channels 16 --conv-out-channels 4 "
    "--encoder-ffn-embed-dim 32 --encoder-attention-heads 2 --decoder-attention-heads 2 --dropout 0 "
    "--fixed-pre-decision-ratio 3 --encoder-chunk-size 4 --waitk-lagging 1-3 "
    "--source-length 30 --target-length-fixed 12 --energy-bias --energy-bias-init 1"
)
ARCH = "s2t_transformer_simul_mla"


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Return noise (N,) int16 whose loudness varies as that of speech."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(round(seconds * RATE))
    loudness = np.repeat(rng.uniform(0.001, 0.3, len(samples) // 800 + 1), 800)[: len(samples)]
    return (samples * loudness * 8_000).astype(np.int16)


def write_corpus(folder: Path) -> Path:
    """Write a corpus in MuST-C's layout, one utterance per file, and return its folder."""
    for split, lengths in SECONDS.items():
        wavs, texts = folder / "data" / split / "wav", folder / "data" / split / "txt"
        wavs.mkdir(parents=True)
        texts.mkdir(parents=True)
        rows = []
        for i, seconds in enumerate(lengths):
            soundfile.write(wavs / f"{split}{i}.wav", noise(seconds, len(split) + i), RATE)
            rows.append(f"- {{duration: {seconds}, offset: 0.0, speaker_id: s, wav: {split}{i}.wav}}")
        (texts / f"{split}.yaml").write_text("\n".join(rows) + "\n", encoding="utf-8")
        for language in ("en", "de"):
            lines = [" ".join(WORDS[i % 7 :: i % 3 + 1]) for i in range(len(lengths))]
            (texts / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder with global CMVN and a small vocabulary; one recording has a single frame."""
    pair = write_corpus(tmp_path_factory.mktemp("corpus") / "en-de")
    settings = Options(vocabulary=Vocabulary("unigram", 36), cmvn="global", specaugment="none")
    prepare(pair, None, settings)
    return pair


Save = Callable[..., Path]


@pytest.fixture(scope="session")
def save(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Save:
    """``save(flags, arch)``: the checkpoint of a model with random weights that emits words of several lengths."""

    @functools.cache
    def save(flags: str = "", arch: str = ARCH) -> Path:
        return save_model(data, tmp_path_factory.mktemp("model") / "checkpoint.pt", flags, arch)

    return save


def save_model(data: Path, path: Path, flags: str = "", arch: str = ARCH) -> Path:
    """Save the checkpoint of such a model for a prepared folder, and return its path."""
    command = f"{data} --task speech_to_text_mla --config-yaml config_st.yaml --arch {arch} {SIZES} {flags}".split()
    args = options.parse_args_and_arch(options.get_training_parser(), command)
    config = convert_namespace_to_omegaconf(args)
    task = tasks.setup_task(config.task)
    torch.manual_seed(17 if "--simul-type" in flags else 5)  # seeds whose models emit words before the source ends
    model = task.build_model(config.model)
    enliven(model)
    if model.decoder.monotonic:
        unsettle(model)
    cfg = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    history = [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}]
    state = {"args": None, "cfg": cfg, "model": model.state_dict(), "optimizer_history": history}
    state |= {"task_state": {}, "extra_state": {}}
    checkpoint_utils.torch_persistent_save(state, str(path))
    return path


@pytest.fixture(scope="session")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A joint folder of two pairs with the same audio."""
    german = write_corpus(tmp_path_factory.mktemp("joint") / "en-de")
    french = Path(shutil.copytree(german, german.with_name("en-fr")))
    for path in french.rglob("*.de"):
        path.rename(path.with_suffix(".fr")).write_text(path.with_suffix(".fr").read_text().replace("ein", "une"))
    settings = Options(vocabulary=Vocabulary("unigram", 40), cmvn="global", specaugment="none")
    return JointPreparation([german, french], german.parent / "prepared", settings).run().parent


@pytest.fixture(scope="session")
def multilingual(joint: Path, tmp_path_factory: pytest.TempPathFactory) -> Save:
    """``multilingual(flags)``: the checkpoint of a multilingual model with random weights."""

    @functools.cache
    def build(flags: str = "", arch: str = "s2t_transformer_simul_mla") -> Path:
        path = save_model(joint, tmp_path_factory.mktemp("model") / "checkpoint.pt", flags, arch)
        state = torch.load(path, weights_only=False)
        tags = state["model"]["decoder.embed_tokens.weight"][4:6]
        tags.copy_(torch.randn(tags.shape, generator=torch.Generator().manual_seed(3)))  # so that the language matters
        scores = state["model"]["decoder.output_projection.weight"]
        scores[4:6] = scores.mean(0)  # the mean is never the highest: it emits no tag by itself, like a trained model
        torch.save(state, path)
        return path

    return build


def enliven(model: torch.nn.Module) -> None:
    """Make a model with random weights emit words of several lengths that depend on the audio.

    Without this it repeats one word: its encoder states hardly differ, and attention adds little to the residual.
    """
    decoder, norm = model.decoder, model.encoder.layer_norm
    with torch.no_grad():
        states = encode_noise(model)
        norm.weight /= states.std(0)
        norm.bias.copy_((norm.bias - states.mean(0)) / states.std(0))
        for layer in decoder.layers:
            for attention in (layer.self_attn, layer.encoder_attn):
                attention.out_proj.weight.mul_(6)
                attention.v_proj.weight.mul_(3)
            layer.encoder_attn.q_proj.weight.mul_(3)
            layer.encoder_attn.out_proj.weight.mul_(4)
            if decoder.monotonic:
                layer.encoder_attn.q_proj_mono.weight.mul_(3)
        decoder.embed_tokens.weight.mul_(0.3)
        decoder.output_projection.weight.mul_(3)
        strength = 1.0 if decoder.monotonic else 0.2  # of a preference for some pieces, whatever the audio is
        decoder.layer_norm.bias.normal_(std=strength)
        begins = torch.tensor([begins_word(symbol) for symbol in decoder.dictionary.symbols])
        decoder.output_projection.weight[begins] += 0.3 / strength * decoder.layer_norm.bias


def encode_noise(model: torch.nn.Module) -> torch.Tensor:
    """Return encoder states (100, C) of random features."""
    return model.eval().encoder(torch.randn(1, 400, 80), torch.tensor([400]))["encoder_out"][0][:, 0]


@torch.no_grad()
def unsettle(model: torch.nn.Module) -> None:
    """Make monotonic heads with random weights stop at some encoder states: scale and centre their keys over time."""
    states = encode_noise(model)
    for layer in model.decoder.layers:
        attention = layer.encoder_attn
        keys = (states - states.mean(0)) @ attention.k_proj_mono.weight.T
        attention.k_proj_mono.weight.mul_(2 / keys.std())
        attention.k_proj_mono.bias.copy_(-(attention.k_proj_mono.weight @ states.mean(0)))


@pytest.fixture(scope="session")
def translator(save: Save, data: Path) -> Callable[..., Translator]:
    """``translator(flags, arch)``: such a model, loaded as users load it."""

    @functools.cache
    def translator(flags: str = "", arch: str = ARCH) -> Translator:
        return Translator.load(save(flags, arch), data)

    return translator
