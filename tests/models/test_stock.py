"""fairseq's checkpoints load as models of this package that compute the same."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import options, tasks
from torch import Tensor

from mla_fairseq.attention import MonotonicMultiheadAttention
from mla_fairseq.models.loading import load_model
from tests.models.conftest import SIZES, TRAINING, Build, Built
from tests.models.test_loading import FORMS
from tests.programs import run

Write = Callable[..., Path]
SIMUL = {
    "simul_type": "waitk_fixed_pre_decision", "waitk_lagging": 2, "fixed_pre_decision_ratio": 3,
    "fixed_pre_decision_type": "average", "fixed_pre_decision_pad_threshold": 0.3, "mass_preservation": True,
    "noise_mean": 0.0, "noise_var": 1.5, "noise_type": "flat", "energy_bias": True, "energy_bias_init": -2.0,
    "attention_eps": 1e-6, "train_monotonic_only": False,
}  # fmt: skip
"""Options of fairseq's ``convtransformer_simul_trans``."""


@pytest.fixture
def convtransformer(corpus: Path) -> Callable[..., Built]:
    """``convtransformer(arch, flags)``: a stock model with random weights."""

    def convtransformer(arch: str = "convtransformer", flags: str = "") -> Built:
        place = SIZES.index("--conv-channels")  # a flag that this model does not have, and its value
        sizes = SIZES[:place] + SIZES[place + 2 :]
        command = [str(corpus), "--task", "speech_to_text", "--arch", arch, "--input-feat-per-channel", "8"]
        args = options.parse_args_and_arch(options.get_training_parser(), [*command, *sizes, *TRAINING, *flags.split()])
        torch.manual_seed(0)
        task = tasks.setup_task(args)
        return Built(task.build_model(args), task, args)

    return convtransformer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(model, form, change, **changes)``: the checkpoint of a stock model."""

    def write(model: Built, form: str = "cfg", change: Callable[[dict], object] = dict, **changes: object) -> Path:
        args = Namespace(**{**vars(model.args), **changes})
        weights = dict(model.model.state_dict())
        change(weights)
        cfg = {"model": args, "task": args, "criterion": {"_name": "cross_entropy"}}
        history = [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 1}]
        state = {"args": None, "cfg": cfg, "model": weights, "optimizer_history": history, "extra_state": {}}
        torch.save(FORMS[form](state), tmp_path / "stock.pt")
        return tmp_path / "stock.pt"

    return write


def inputs(frames: int = 90) -> dict[str, Tensor]:
    """Return a batch without padding, of features and target tokens."""
    generator = torch.Generator().manual_seed(3)
    return {
        "src_tokens": torch.randn(2, frames, 8, generator=generator),
        "src_lengths": torch.tensor([frames, frames]),
        "prev_output_tokens": torch.randint(4, 30, (2, 7), generator=generator),
    }


def outputs(model: Any) -> Tensor:
    with torch.no_grad():
        return model.eval()(**inputs())[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("flags", ["", "--encoder-normalize-before --decoder-normalize-before"], ids=["post", "pre"])
@pytest.mark.parametrize("arch", ["convtransformer", "convtransformer_espnet"])
def test_convtransformer_gives_the_same_scores(convtransformer, write: Write, form: str, flags: str, arch: str) -> None:
    stock = convtransformer(arch, flags)
    model, _ = load_model(write(stock, form), {})
    assert type(model).__name__ == "S2TTransformerMLAModel"
    torch.testing.assert_close(outputs(model), outputs(stock.model), rtol=0, atol=5e-6)


def test_an_encoder_of_convtransformer_initialises_training(build: Build, convtransformer, write: Write) -> None:
    stock = convtransformer(flags="--encoder-normalize-before")
    flags = f"--load-pretrained-encoder-from {write(stock)} --conv-version convtransformer --conv-out-channels 4"
    ours = build(flags=flags).model.encoder
    expected = stock.model.encoder.state_dict()
    assert torch.equal(ours.subsample.out.weight, expected["out.weight"])
    assert torch.equal(ours.transformer_layers[1].fc1.weight, expected["transformer_layers.1.fc1.weight"])


def as_simul(weights: dict[str, Tensor]) -> None:
    """Add what fairseq's wait-k attention stores and never uses."""
    for name in [name for name in weights if ".encoder_attn." in name and "_proj" in name and name[-11:-7] != "v_pr"]:
        if ".q_proj." in name or ".k_proj." in name:
            weights[name.replace("_proj.", "_proj_soft.")] = torch.randn_like(weights[name])
    for i in range(2):
        weights[f"decoder.layers.{i}.encoder_attn.energy_bias"] = torch.full((1,), -1.0 - i)


@pytest.mark.parametrize("form", FORMS)
def test_wait_k_of_fairseqs_example_gives_the_same_scores(convtransformer, write: Write, form: str) -> None:
    """With the whole source visible, its attention is softmax over all states."""
    stock = convtransformer("convtransformer_espnet")
    name = "convtransformer_simul_trans_espnet"
    path = write(stock, form, as_simul, arch=name, _name=name, criterion="no_such_criterion", **SIMUL)
    model, _ = load_model(path, {})
    assert (model.decoder.wait_k.lowest, model.decoder.wait_k.ratio) == (2, 3)
    assert not model.encoder.streams
    encoded = model.eval().encoder(inputs()["src_tokens"], inputs()["src_lengths"], waitk_lagging=None)
    with torch.no_grad():
        scores = model.decoder(inputs()["prev_output_tokens"], encoded)[0]
    torch.testing.assert_close(scores, outputs(stock.model), rtol=0, atol=5e-6)


@pytest.mark.parametrize("simul_type", ["infinite_lookback", "infinite_lookback_fixed_pre_decision", "hard_aligned"])
def test_monotonic_projections_have_their_names(convtransformer, write: Write, simul_type: str) -> None:
    """fairseq's ``q_proj`` decides, and ``q_proj_soft`` attends."""
    stock = convtransformer()
    soft: dict[str, Tensor] = {}

    def change(weights: dict[str, Tensor]) -> None:
        as_simul(weights)
        for key in [key for key in weights if "_soft" in key]:
            soft[key] = weights[key] if simul_type != "hard_aligned" else weights.pop(key)

    name = "convtransformer_simul_trans_espnet"
    path = write(stock, "args", change, arch=name, **(SIMUL | {"simul_type": simul_type}))
    model, _ = load_model(path, {})
    theirs = stock.model.state_dict()
    for i, layer in enumerate(model.decoder.layers):
        attention, prefix = layer.encoder_attn, f"decoder.layers.{i}.encoder_attn"
        assert isinstance(attention, MonotonicMultiheadAttention)
        assert torch.equal(attention.q_proj_mono.weight, theirs[f"{prefix}.q_proj.weight"])
        assert torch.equal(attention.k_proj_mono.bias, theirs[f"{prefix}.k_proj.bias"])
        if simul_type != "hard_aligned":
            assert torch.equal(attention.k_proj.weight, soft[f"{prefix}.k_proj_soft.weight"])
        assert float(attention.energy_bias) == -1.0 - i
        assert attention.monotonic.noise_var == 1.5**2, "fairseq's option is the standard deviation"


def test_an_option_that_is_not_followed_here_is_reported(build: Build, write: Write) -> None:
    path = write(build("s2t_transformer"), no_token_positional_embeddings=True)
    with pytest.raises(ValueError, match=r"not supported here \(no_token_positional_embeddings=True\): load it as s2t"):
        load_model(path, {})


def test_a_stock_model_keeps_softmax_if_converted(convtransformer, write: Write, corpus: Path, tmp_path: Path) -> None:
    stock = convtransformer()
    flags = ["--data", corpus, "--config-yaml", "config.yaml", "--output", tmp_path / "new.pt"]
    done = run("mla-linearize", write(stock, "args"), *flags)
    assert done.code == 0, done.err
    state = torch.load(tmp_path / "new.pt", weights_only=True)
    assert state["args"].arch == "s2t_transformer_mla"
    torch.testing.assert_close(outputs(load_model(tmp_path / "new.pt", {})[0]), outputs(stock.model), rtol=0, atol=5e-6)
    again = run("mla-linearize", tmp_path / "new.pt", *flags)
    assert again.code == 1 and "every site has the mechanism already" in again.last_line


@pytest.mark.parametrize("size", ["", "_espnet"])
def test_training_starts_from_a_convtransformer(build: Build, convtransformer, size: str) -> None:
    stock, ours = convtransformer(f"convtransformer{size}").model, build(f"convtransformer_mla{size}").model
    ours.load_state_dict(dict(stock.state_dict()))
    torch.testing.assert_close(outputs(ours), outputs(stock), rtol=0, atol=5e-6)
