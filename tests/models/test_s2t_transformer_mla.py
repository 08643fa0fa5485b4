"""With softmax everywhere ``s2t_transformer_mla`` equals ``s2t_transformer``: parameters, outputs, gradients.

fairseq's subsampler lets padding leak between its convolutions, so whole models are compared on unpadded batches.
"""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from fairseq import options
from fairseq.models import BaseFairseqModel
from torch import Tensor

from mla_fairseq.errors import UserError
from mla_fairseq.models.checks import load_encoder
from mla_fairseq.models.s2t_transformer_mla import ARCHITECTURES
from tests.models.conftest import FEATURES, Build

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
NO_DROPOUT = "--dropout 0 --attention-dropout 0 --activation-dropout 0"
STOCK_SIZES = ("", "_xs", "_s", "_sp", "_m", "_mp", "_l", "_lp")
VARIANTS = {
    "base": "",
    "conv2d": "--conv-version convtransformer",
    "shared-embeddings": "--share-decoder-input-output-embed",
    "layernorm-embedding": "--layernorm-embedding",
    "unscaled": "--no-scale-embedding",
    "one-convolution": "--conv-kernel-sizes 3",
    "wide-decoder": "--decoder-embed-dim 24",
    "gelu": "--activation-fn gelu",
    "odd-channels": "--encoder-embed-dim 15 --encoder-attention-heads 3 --decoder-embed-dim 15 "
    "--decoder-attention-heads 5",
}


def shake(model: BaseFairseqModel) -> None:
    """Change every parameter: zero biases and unit norms would hide a missing layer."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def load(state: dict[str, Tensor], model: BaseFairseqModel) -> None:
    """Load a checkpoint's parameters strictly, as fairseq does."""
    model.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, strict=True)


def pair(build: Build, flags: str, post_norm: bool = False) -> tuple[BaseFairseqModel, BaseFairseqModel]:
    """fairseq's model, and ours with its parameters loaded strictly; both without dropout."""
    models = []
    for arch in ("s2t_transformer", "s2t_transformer_mla"):
        built = build(arch, f"{NO_DROPOUT} {flags}")
        if post_norm:  # the flags can only switch it on, where the architecture already has it
            built.args.encoder_normalize_before = built.args.decoder_normalize_before = False
            models.append(built.task.build_model(built.args))
        else:
            models.append(built.model)
    stock, ours = models
    shake(stock)
    load(stock.state_dict(), ours)
    return stock.eval(), ours.eval()


def speech(batch: int = 3, frames: int = 37, tokens: int = 9) -> dict[str, Tensor]:
    """Return a batch without padding."""
    return {
        "src_tokens": torch.randn(batch, frames, FEATURES),
        "src_lengths": torch.full((batch,), frames),
        "prev_output_tokens": torch.randint(4, 32, (batch, tokens)),
    }


@pytest.mark.parametrize("flags", VARIANTS.values(), ids=VARIANTS)
def test_outputs_are_fairseqs(build: Build, flags: str) -> None:
    stock, ours = pair(build, flags)
    batch = speech()
    with torch.no_grad():
        torch.testing.assert_close(ours(**batch)[0], stock(**batch)[0], **CLOSE)


def test_post_norm_outputs_are_fairseqs(build: Build) -> None:
    stock, ours = pair(build, "", post_norm=True)
    assert ours.encoder.layer_norm is None and ours.decoder.layer_norm is None
    batch = speech()
    with torch.no_grad():
        torch.testing.assert_close(ours(**batch)[0], stock(**batch)[0], **CLOSE)


def test_long_speech_outputs_are_fairseqs(build: Build) -> None:
    stock, ours = pair(build, "")
    batch = speech(1, 4999, 40)
    with torch.no_grad():
        torch.testing.assert_close(ours(**batch)[0], stock(**batch)[0], **CLOSE)


@pytest.mark.parametrize("flags", [VARIANTS["base"], VARIANTS["conv2d"]], ids=["conv1d", "conv2d"])
def test_gradients_are_fairseqs(build: Build, flags: str) -> None:
    stock, ours = pair(build, flags)
    batch = speech()
    for model in (stock, ours):
        model.train()
        model(**batch)[0].log_softmax(-1)[..., 7].sum().backward()
    gradients = {name: parameter.grad for name, parameter in stock.named_parameters()}
    assert all(gradient.abs().max() > 0 for name, gradient in gradients.items() if "k_proj.bias" not in name)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: n + m)


def test_step_by_step_outputs_are_fairseqs(build: Build) -> None:
    stock, ours = pair(build, "")
    source = speech()
    tokens = source.pop("prev_output_tokens")
    source["src_tokens"] = source["src_tokens"][:1].expand(3, -1, -1)  # three beams of one sentence
    with torch.no_grad():
        encoded, states = [model.encoder(**source) for model in (stock, ours)], ({}, {})
        for length in range(1, tokens.shape[1] + 1):
            if length == 5:  # beams change places
                order = torch.tensor([2, 0, 0])
                tokens = tokens[order]
                for i, model in enumerate((stock, ours)):
                    model.decoder.reorder_incremental_state_scripting(states[i], order)
                    encoded[i] = model.encoder.reorder_encoder_out(encoded[i], order)
            expected, got = (
                model.decoder(tokens[:, :length], encoder_out, incremental_state=state)[0]
                for model, encoder_out, state in zip((stock, ours), encoded, states, strict=True)
            )
            torch.testing.assert_close(got, expected, **CLOSE)


def test_padded_batches_are_fairseqs_where_padding_cannot_leak(build: Build) -> None:
    stock, ours = pair(build, "--conv-kernel-sizes 1,1")
    batch = speech()
    batch["src_lengths"] = torch.tensor([37, 20, 5])
    batch["prev_output_tokens"][1, 6:] = batch["prev_output_tokens"][2, 2:] = 1
    real = batch["prev_output_tokens"].ne(1)
    with torch.no_grad():
        torch.testing.assert_close(ours(**batch)[0][real], stock(**batch)[0][real], **CLOSE)


def test_alignments_are_fairseqs(build: Build) -> None:
    stock, ours = pair(build, "")
    batch = speech()
    tokens = batch.pop("prev_output_tokens")
    with torch.no_grad():
        _, expected = stock.decoder.extract_features_scriptable(tokens, stock.encoder(**batch), None, alignment_layer=1)
        _, got = ours.decoder(tokens, ours.encoder(**batch), alignment_layer=1)
    torch.testing.assert_close(got["attn"][0], expected["attn"][0], **CLOSE)


def test_fairseq_loads_checkpoints_of_this_package(build: Build) -> None:
    stock, ours = pair(build, "")
    shake(ours)
    load(ours.state_dict(), stock)
    batch = speech()
    with torch.no_grad():
        torch.testing.assert_close(stock(**batch)[0], ours(**batch)[0], **CLOSE)


@pytest.mark.parametrize("size", STOCK_SIZES, ids=lambda size: size or "base")
def test_an_architecture_is_fairseqs_of_that_size(corpus, size: str) -> None:
    def sizes(arch: str) -> dict:
        command = [str(corpus), "--task", "speech_to_text", "--arch", arch]
        return vars(options.parse_args_and_arch(options.get_training_parser(), command))

    ours, stock = sizes(f"s2t_transformer_mla{size}"), sizes(f"s2t_transformer{size}")
    different = {name for name in stock if ours[name] != stock[name]}
    assert different == {"arch"}
    assert stock["encoder_layers"] == 16 if size.endswith("p") else stock["encoder_layers"] in (6, 12)


def test_no_architecture_of_fairseqs_is_missing() -> None:
    assert set(ARCHITECTURES) == {f"s2t_transformer_mla{size}" for size in (*STOCK_SIZES, "_tiny")}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_an_architecture_loads_fairseqs_checkpoint(build: Build, arch: str) -> None:
    stock = build(arch.replace("_mla", "").replace("_tiny", "_xs")).model
    ours = build(arch).model
    shake(stock)
    load(stock.state_dict(), ours)
    batch = speech()
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(**batch)[0], stock.eval()(**batch)[0], **CLOSE)


def test_tiny_has_the_documented_size(corpus) -> None:
    command = [str(corpus), "--task", "speech_to_text", "--arch", "s2t_transformer_mla_tiny"]
    args = options.parse_args_and_arch(options.get_training_parser(), command)
    assert (args.encoder_embed_dim, args.decoder_embed_dim, args.conv_channels) == (128, 128, 256)
    assert (args.encoder_ffn_embed_dim, args.decoder_ffn_embed_dim) == (512, 512)
    assert (args.encoder_layers, args.decoder_layers) == (6, 3)
    assert (args.encoder_attention_heads, args.decoder_attention_heads) == (4, 4)


@pytest.mark.parametrize("mechanism", ["relu", "elu", "cosformer"])
def test_fairseqs_checkpoint_initialises_another_mechanism(build: Build, mechanism: str) -> None:
    stock, ours = build("s2t_transformer").model, build(flags=f"--attn-type {mechanism}").model
    shake(stock)
    load(stock.state_dict(), ours)
    parameters = dict(ours.named_parameters())
    assert set(dict(stock.named_parameters())) == set(parameters)
    for name, parameter in stock.named_parameters():
        torch.testing.assert_close(parameters[name], parameter, rtol=0, atol=0)


def test_checkpoints_load_into_other_mechanisms(build: Build) -> None:
    softmax, cosformer = build().model, build(flags="--attn-type cosformer").model
    load(cosformer.state_dict(), softmax)
    load(softmax.state_dict(), cosformer)
    assert "decoder.length_rule.tokens_and_states" in cosformer.state_dict()


@pytest.mark.parametrize("mechanism", ["leap", "hedgehog", "performer"])
def test_a_mechanism_with_parameters_starts_from_a_checkpoint_without(
    build: Build, mechanism: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    softmax, other = build().model, build(flags=f"--attn-type {mechanism}").model
    initial = {name: tensor.clone() for name, tensor in other.state_dict().items() if ".mechanism." in name}
    assert initial
    load(softmax.state_dict(), other)
    assert "parameters that are not in the checkpoint start from scratch" in caplog.text
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, initial.get(name, softmax.state_dict().get(name))), name
    load(other.state_dict(), softmax)
    torch.save({"model": softmax.state_dict()}, tmp_path / "softmax.pt")
    load_encoder(other.encoder, str(tmp_path / "softmax.pt"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--cross-attn-type decay", "--cross-attn-type is decay, which attends only to its own past"),
        ("--encoder-attn-type gla", "it needs a simultaneous model with a chunked encoder"),
        ("--encoder-attn-type gla --encoder-chunk-size 4 --encoder-left-chunks 1", "a linear encoder cannot forget"),
    ],
    ids=["cross", "full-context encoder", "window"],
)
def test_a_mechanism_that_fades_needs_tokens_in_order(build: Build, flags: str, message: str) -> None:
    with pytest.raises((ValueError, UserError), match=message):
        build(flags=flags)


def test_random_features_are_redrawn_after_the_number_of_updates(build: Build) -> None:
    model = build(flags="--attn-type performer --performer-redraw 3").model
    features = model.encoder.transformer_layers[0].self_attn.mechanism
    drawn = [features.directions.clone()]
    for update in range(1, 8):
        model.set_num_updates(update)
        drawn.append(features.directions.clone())
    model.eval().set_num_updates(9)
    drawn.append(features.directions.clone())
    changed = [not torch.equal(a, b) for a, b in pairwise(drawn)]
    assert changed == [False, False, True, False, False, True, False, False]
