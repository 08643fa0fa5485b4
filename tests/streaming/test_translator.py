"""Loading a model to stream with: what is missing or cannot stream is reported in one line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mla_fairseq.streaming import IncrementalSession, Translator, WaitKPolicy
from tests.streaming.conftest import noise


def test_a_folder_without_the_configuration(save, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config_st\.yaml is missing \(configurations in this folder: none\)"):
        Translator.load(save(), tmp_path)


def test_a_file_that_is_not_a_checkpoint(data: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint"):
        Translator.load("nowhere.pt", data)
    with pytest.raises(ValueError, match="is not a fairseq checkpoint"):
        Translator.load(data / "config_st.yaml", data)


def test_features_normalised_by_utterance_cannot_stream(save, data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    config = yaml.safe_load((folder / "config_st.yaml").read_text())
    config["feature_transforms"] = {"*": ["utterance_cmvn"], "_train": ["utterance_cmvn"]}
    (folder / "config_st.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"transforms features by utterance_cmvn.*mla-prepare --cmvn global"):
        Translator.load(save(), folder)


def cut_statistics(folder: Path) -> None:
    (folder / "gcmvn.npz").write_bytes((folder / "gcmvn.npz").read_bytes()[:99])


def reverse_dictionary(folder: Path) -> None:
    dictionary = next(folder.glob("spm_*.txt"))
    dictionary.write_text("".join(reversed(dictionary.read_text().splitlines(keepends=True))))


def change(key: str, value: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = yaml.safe_load((folder / "config_st.yaml").read_text())
        (folder / "config_st.yaml").write_text(yaml.safe_dump(config | {key: value}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(cut_statistics, r"gcmvn\.npz is not an npz of mean and std", id="statistics"),
        pytest.param(reverse_dictionary, r"spm_\w+\.txt has '.+' where spm_\w+\.model has '.+'", id="dictionary"),
        pytest.param(change("feature_transforms", ["global_cmvn"]), "feature_transforms is not a section", id="list"),
        pytest.param(change("global_cmvn", "gcmvn.npz"), "global_cmvn is not a section", id="text"),
        pytest.param(change("sample_rate", "16000"), r"sample_rate is not a whole number above 0 .*16000", id="rate"),
    ],
)
def test_a_broken_folder_is_reported_as_in_training(
    save, data: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder := Path(shutil.copytree(data, tmp_path / "data")))
    with pytest.raises(ValueError, match=rf"{folder}.*{message}") as error:
        Translator.load(save(), folder)
    assert "\n" not in str(error.value)


def test_a_model_with_other_symbols_or_weights_that_are_not_finite(save, data: Path, tmp_path: Path) -> None:
    state = torch.load(save(), weights_only=True)
    torch.save(state | {"task_state": {"symbols": ["<s>", "<pad>", "</s>", "<unk>", "x"]}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"was trained with other symbols than those of .*symbol 4 is 'x' there"):
        Translator.load(tmp_path / "other.pt", data)
    state["model"]["encoder.layer_norm.weight"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"nan\.pt has NaN or infinite numbers in 'encoder\.layer_norm\.weight'"):
        Translator.load(tmp_path / "nan.pt", data)


def test_a_model_of_text_to_speech(save, data: Path, tmp_path: Path) -> None:
    state = torch.load(save(), weights_only=True)
    state["cfg"]["model"]._name = state["cfg"]["model"].arch = "tts_transformer_mla"
    torch.save(state, tmp_path / "speech.pt")
    with pytest.raises(ValueError, match="the architecture is tts_transformer_mla, which is not of --task"):
        Translator.load(tmp_path / "speech.pt", data)


def test_missing_statistics(save, data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    (folder / "gcmvn.npz").unlink()
    with pytest.raises(ValueError, match=r"gcmvn\.npz is missing"):
        Translator.load(save(), folder)


def test_an_unknown_mechanism(save, data: Path, tmp_path: Path) -> None:
    state = torch.load(save("--attn-type relu"), weights_only=True)
    state["cfg"]["model"].attn_type = "softplus"
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"unknown attention 'softplus': .*; .* import that package first"):
        Translator.load(tmp_path / "model.pt", data)


def test_a_full_context_encoder(save, data: Path) -> None:
    with pytest.raises(ValueError, match="full-context encoder: train one with --encoder-chunk-size"):
        IncrementalSession(Translator.load(save("--encoder-chunk-size 0"), data), WaitKPolicy(1, 3))


def test_an_unavailable_device(translator) -> None:
    with pytest.raises(ValueError, match="device 'nosuch' is not available"):
        translator().to("nosuch")


def test_half_precision_gives_nearly_the_same_scores(save, data: Path) -> None:
    model = Translator.load(save("--attn-type relu"), data)
    samples = noise(1.5, 3)
    scores = []
    for fp16 in (False, True):
        model.to("cpu", fp16)
        session = IncrementalSession(model, WaitKPolicy(2, 3))
        session.push(samples[:6000])
        assert session.source.encoder_state["encoder.transformer_layers.0.self_attn"]["memory"].dtype.itemsize == 4
        session.push(samples[6000:], final=True)
        scores.append(np.array([score for score, _ in session.search.finished]))
    assert np.allclose(*scores, atol=0.2)
