"""Sessions of a stock model: no conversion, overrides, and features normalised by utterance."""

import shutil
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fairseq.data.audio.feature_transforms.utterance_cmvn import UtteranceCMVN

from mla_fairseq.agents import AlignAttAgent
from mla_fairseq.attention import LinearAttention
from mla_fairseq.errors import UserError
from mla_fairseq.speech.features import FilterBankStream
from mla_fairseq.streaming import AlignAttPolicy, HoldPolicy, OfflineSession, Translator
from tests.models.test_loading import FORMS
from tests.streaming.conftest import noise

Save = Callable[..., Path]
OFFLINE = "--encoder-chunk-size 0"


@pytest.fixture
def stock(save: Save, tmp_path: Path) -> Callable[[str], Path]:
    """``stock(form)``: a checkpoint that a stock ``s2t_transformer`` could have left, in a form of fairseq's."""

    def stock(form: str = "cfg") -> Path:
        state = torch.load(save(OFFLINE), weights_only=True)
        model = state["cfg"]["model"]
        model._name = model.arch = "s2t_transformer_s"
        for option in ("simul_type", "waitk_lagging", "encoder_chunk_size", "encoder_left_chunks"):
            delattr(model, option)
        state["task_state"] = {}
        state["cfg"]["task"] = model
        model.task = "speech_to_text"
        torch.save(FORMS[form](state), tmp_path / "stock.pt")
        return tmp_path / "stock.pt"

    return stock


@pytest.fixture
def by_utterance(data: Path, tmp_path: Path) -> Path:
    """Copy the data, with features normalised by utterance."""
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    config = yaml.safe_load((folder / "config_st.yaml").read_text())
    config["feature_transforms"] = {"*": ["utterance_cmvn"]}
    (folder / "config_st.yaml").write_text(yaml.safe_dump(config))
    return folder


def words(translator: Translator, policy: object = None) -> str:
    session = OfflineSession(translator, policy or HoldPolicy(2))
    samples = noise(2.0, 3)
    emitted = [e.text for part in np.array_split(samples, 4) for e in session.push(part)]
    return " ".join([*emitted, *(e.text for e in session.push(samples[:0], final=True))]).strip()


@pytest.mark.parametrize("form", FORMS)
def test_a_stock_model_translates_as_the_model_of_this_package(save: Save, stock, data: Path, form: str) -> None:
    expected = words(Translator.load(save(OFFLINE), data))
    assert expected and words(Translator.load(stock(form), data)) == expected


def test_overrides_change_a_stock_model(stock, data: Path) -> None:
    translator = Translator.load(stock(), data, overrides={"encoder_attn_type": "relu"})
    assert isinstance(translator.model.encoder.transformer_layers[0].self_attn.mechanism, LinearAttention)
    with pytest.raises(
        ValueError, match="names 'atn_type', which is not an option of s2t_transformer_mla: did you mean"
    ):
        Translator.load(stock(), data, overrides={"atn_type": "relu"})


def test_features_are_normalised_by_the_recording_so_far(stock, by_utterance: Path) -> None:
    """At the end they are fairseq's features of the whole utterance."""
    translator = Translator.load(stock(), by_utterance)
    samples = noise(1.3, 4)
    session = OfflineSession(translator, AlignAttPolicy(2))
    session.push(samples[:9000])
    session.push(samples[9000:], final=True)
    frames = UtteranceCMVN()(FilterBankStream().push(samples, final=True))
    with torch.no_grad():
        states = translator.model.encoder(torch.from_numpy(frames)[None], torch.tensor([len(frames)]))["encoder_out"][0]
    torch.testing.assert_close(session.source.states, states, rtol=0, atol=1e-3)  # float32 sums in another order


def test_norms_that_fairseq_would_leave_out_are_refused(stock, by_utterance: Path) -> None:
    path = by_utterance / "config_st.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(config | {"utterance_cmvn": {"norm_means": True, "norm_vars": False}}))
    with pytest.raises(ValueError, match="transforms features by utterance_cmvn"):
        Translator.load(stock(), by_utterance)


def agent(checkpoint: Path, data: Path, *flags: str) -> AlignAttAgent:
    parser = ArgumentParser()
    AlignAttAgent.add_args(parser)
    return AlignAttAgent(parser.parse_args(["--model-path", str(checkpoint), "--data-bin", str(data), *flags]))


def test_agents_take_a_stock_model_and_overrides(stock, by_utterance: Path) -> None:
    translator = agent(stock(), by_utterance, "--model-overrides", "{'cross_attn_type': 'relu'}").translator
    assert isinstance(translator.model.decoder.layers[0].encoder_attn.mechanism, LinearAttention)
    with pytest.raises(UserError, match=r"--model-overrides is '\{1': give a Python dictionary"):
        agent(stock(), by_utterance, "--model-overrides", "{1")
