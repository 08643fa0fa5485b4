"""A Conformer encoder: fairseq's own with the right norms; padding and later chunks change no state."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq import options, tasks
from fairseq.models import BaseFairseqModel
from hypothesis import given, settings
from hypothesis import strategies as st

from mla_fairseq.attention import Hedgehog, nbytes, reorder
from mla_fairseq.errors import UserError
from mla_fairseq.models.checks import CRITERION, load_encoder
from mla_fairseq.models.conformer_layer import RealBatchNorm
from mla_fairseq.models.limits import check_sizes
from mla_fairseq.models.loading import load_model
from mla_fairseq.models.stock import adopt
from tests.models.conftest import EVERYWHERE, FEATURES, STREAMING, Build, Built
from tests.models.test_encoder import padded, sentences
from tests.models.test_loading import FORMS
from tests.models.test_s2t_transformer_mla import CLOSE, NO_DROPOUT, load, shake, speech
from tests.models.test_streaming import simul, streamed
from tests.programs import Done, run

OFFLINE, STREAMS = "s2t_conformer_mla", "s2t_conformer_simul_mla"
KERNEL = "--depthwise-conv-kernel-size 5"
STOCK = "--conformer-block-norm --conformer-conv-norm batch"
NORMS = {"default": "", "fairseq's": STOCK, "batch": "--conformer-conv-norm batch"}
RELATIVE = "--pos-enc-type rel_pos"
CTC = f"--task speech_to_text_mla --criterion {CRITERION} --ctc-weight 0.3"
KINDS = EVERYWHERE | {"relative": RELATIVE, "fairseq's": STOCK}
every_kind = pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)


@every_kind
@torch.no_grad()
def test_padding_never_changes_a_sentence(build: Build, flags: str) -> None:
    model = build(OFFLINE, f"{KERNEL} {flags}").model.double().eval()
    shake(model)
    together = model.encoder(**padded(whole := sentences(), extra=9))
    for i, sentence in enumerate(whole):
        states = model.encoder(**padded([sentence]))["encoder_out"][0]
        real = ~together["encoder_padding_mask"][0][i]
        torch.testing.assert_close(together["encoder_out"][0][real, i], states[:, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("arch", [OFFLINE, STREAMS])
@pytest.mark.parametrize("flags", [*NORMS.values(), RELATIVE], ids=[*NORMS, "relative"])
def test_padding_changes_no_gradient(build: Build, arch: str, flags: str) -> None:
    """In training too, where batch normalization has the statistics of the batch."""
    model = build(arch, f"{KERNEL} {NO_DROPOUT} {flags}").model.double()
    gradients, whole = [], sentences()
    for extra in (0, 24):
        encoded = model.encoder(**padded(whole, extra))
        mask = ~encoded["encoder_padding_mask"][0].t()
        model.zero_grad()
        encoded["encoder_out"][0][mask].square().mul(torch.arange(1, 17)).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.encoder.parameters()])
    for i, (name, _) in enumerate(model.encoder.named_parameters()):
        torch.testing.assert_close(gradients[1][i], gradients[0][i], rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("flags", [*STREAMING.values(), RELATIVE, STOCK], ids=[*STREAMING, "relative", "fairseq's"])
@given(length=st.integers(1, 70), cuts=st.lists(st.integers(0, 20), max_size=8))
@settings(max_examples=6)
@torch.no_grad()
def test_the_streaming_encoder_equals_the_parallel_one(build: Build, flags: str, length: int, cuts: list[int]) -> None:
    model = simul(build, f"{KERNEL} {flags}", STREAMS)
    batch = {
        "src_tokens": torch.randn(2, length, FEATURES, dtype=torch.double), "src_lengths": torch.full((2,), length)
    }  # fmt: skip
    expected = model.encoder(**batch)["encoder_out"][0]
    torch.testing.assert_close(streamed(model, batch["src_tokens"], cuts), expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_the_state_does_not_grow_and_may_be_reordered(build: Build) -> None:
    model, frames = simul(build, f"{KERNEL} --attn-type relu", STREAMS), torch.randn(2, 160, FEATURES).double()
    expected, state, sizes = streamed(model, frames, []), {}, []
    for start in range(0, 128, 16):
        model.encoder.stream(frames[:, start : start + 16], state)
        sizes.append(nbytes(state))
    assert len(set(sizes[2:])) == 1
    assert state["encoder.conformer_layers.0.conv_module"]["held"].shape == (2, 2, 16)
    reorder(state, torch.tensor([1, 0]))
    found = model.encoder.stream(frames.flip(0)[:, 128:], state, final=True)
    torch.testing.assert_close(found, expected[-len(found) :].flip(1), rtol=0, atol=1e-9)


def pair(build: Build, flags: str) -> tuple[BaseFairseqModel, BaseFairseqModel]:
    """fairseq's model, and ours with its parameters loaded strictly; both without dropout."""
    stock = build("s2t_conformer", f"{NO_DROPOUT} {KERNEL} {flags}").model
    flags = flags.replace("--attn-type espnet", "")  # an implementation of softmax
    model = build(OFFLINE, f"{NO_DROPOUT} {KERNEL} {flags} {STOCK}").model
    shake(stock)
    for module in stock.modules():
        if isinstance(module, torch.nn.BatchNorm1d):  # as after a training
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    load(stock.state_dict(), model)
    return stock.eval(), model.eval()


VARIANTS = {
    "abs": "", "espnet": "--attn-type espnet", "relative": "--attn-type espnet --pos-enc-type rel_pos",
    "conv2d": "--conv-version convtransformer",
}  # fmt: skip


@pytest.mark.parametrize("flags", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_outputs_are_fairseqs(build: Build, flags: str) -> None:
    stock, ours = pair(build, flags)
    batch = speech(frames=90)
    torch.testing.assert_close(ours(**batch)[0], stock(**batch)[0], **CLOSE)


def save(built: Built, path: Path, form: str = "cfg") -> None:
    """Write a checkpoint of a model, in one of fairseq's forms."""
    cfg = {"model": built.args, "task": built.args, "criterion": {"_name": "cross_entropy"}}
    history = [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 1}]
    state = {"args": None, "cfg": cfg, "model": built.model.state_dict(), "optimizer_history": history}
    torch.save(FORMS[form](state | {"extra_state": {}}), path)


@pytest.mark.parametrize(("form", "variant"), [*(("cfg", name) for name in VARIANTS), ("args", "relative")])
def test_fairseqs_checkpoints_load(build: Build, tmp_path: Path, form: str, variant: str) -> None:
    stock = build("s2t_conformer", f"{NO_DROPOUT} {KERNEL} {VARIANTS[variant]}")
    save(stock, tmp_path / "stock.pt", form)
    model, _ = load_model(tmp_path / "stock.pt", {})
    assert type(model).__name__ == "S2TConformerMLAModel"
    with torch.no_grad():
        batch = speech(frames=90)
        torch.testing.assert_close(model.eval()(**batch)[0], stock.model.eval()(**batch)[0], **CLOSE)


def test_rotary_positions_are_refused(build: Build) -> None:
    options = build("s2t_conformer").args
    options.attn_type, options.pos_enc_type = "espnet", "rope"
    with pytest.raises(ValueError, match=r"not supported here \(pos_enc_type='rope'\): load it as s2t_conformer"):
        adopt(options, "s2t_conformer")


@pytest.mark.parametrize("flags", ["", "--encoder-attn-type relu"], ids=["softmax", "relu"])
def test_a_full_context_encoder_initialises_a_chunked_one(build: Build, tmp_path: Path, flags: str) -> None:
    """A recogniser with CTC initialises a model without."""
    recogniser = build(OFFLINE, f"{KERNEL} {CTC}").model
    model = build(STREAMS, f"{KERNEL} {flags}").model
    shake(recogniser)
    torch.save({"model": recogniser.state_dict()}, tmp_path / "asr.pt")
    load_encoder(model.encoder, str(tmp_path / "asr.pt"))
    assert recogniser.encoder.ctc is not None
    for name, tensor in recogniser.encoder.state_dict().items():
        assert name.startswith("ctc.") or torch.equal(model.encoder.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("trained", "flags", "message"),
    [
        (STOCK, "", r"another norm \(final_layer_norm\): add --conformer-block-norm"),
        ("--conformer-conv-norm batch", "", r"\(conv_module.batch_norm\): add --conformer-conv-norm batch"),
        ("", "--conformer-conv-norm batch", r"\(conv_module.depthwise_norm\): add --conformer-conv-norm layer"),
        ("", "--conformer-block-norm", "without a norm at each layer's end: remove --conformer-block-norm"),
        ("", "--depthwise-conv-kernel-size 7", "size mismatch for encoder.conformer_layers.0.conv_module"),
    ],
)
def test_another_conformer_is_named(build: Build, trained: str, flags: str, message: str) -> None:
    state = build(OFFLINE, f"{KERNEL} {trained}").model.state_dict()
    with pytest.raises(UserError, match=message):
        build(OFFLINE, f"{KERNEL} {flags}").model.load_state_dict(state)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--depthwise-conv-kernel-size 4", "--depthwise-conv-kernel-size must be an odd number above 0, but is 4"),
        ("--depthwise-conv-kernel-size -1", "--depthwise-conv-kernel-size must be an odd number above 0, but is -1"),
        (f"{RELATIVE} --encoder-attn-type relu", "rel_pos needs softmax attention in the encoder, .* is relu: use"),
    ],
)
def test_wrong_flags_are_named(build: Build, flags: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(OFFLINE, flags)


@pytest.mark.parametrize(
    "option", ["encoder_embed_dim", "encoder_ffn_embed_dim", "encoder_layers", "depthwise_conv_kernel_size"]
)
def test_a_checkpoint_asks_for_the_sizes_of_its_weights(build: Build, option: str) -> None:
    built = build(OFFLINE, KERNEL)
    sizes = vars(built.args)
    check_sizes("a.pt", sizes, built.model.state_dict())
    with pytest.raises(ValueError, match=rf"another size than its weights have \({option}="):
        check_sizes("a.pt", sizes | {option: 2 * sizes[option] + 1}, built.model.state_dict())


def test_a_single_state_has_no_statistics() -> None:
    norm = RealBatchNorm(3)
    norm.running_mean.fill_(1.0)
    torch.testing.assert_close(norm(torch.full((1, 1, 3), 3.0)), torch.full((1, 1, 3), 2.0))


def test_tiny_is_as_large_as_the_transformer(corpus: Path) -> None:
    sizes = {}
    for arch in ("s2t_conformer_mla_tiny", "s2t_transformer_mla_tiny", "s2t_conformer_simul_mla_tiny"):
        command = [str(corpus), "--task", "speech_to_text", "--arch", arch]
        args = options.parse_args_and_arch(options.get_training_parser(), command)
        model = tasks.setup_task(args).build_model(args)
        assert (args.encoder_layers, args.decoder_layers, args.encoder_embed_dim) == (6, 3, 128)
        sizes[arch] = sum(parameter.numel() for parameter in model.parameters())
    assert max(sizes.values()) < 1.03 * min(sizes.values())
    assert (args.depthwise_conv_kernel_size, args.conformer_block_norm, args.encoder_chunk_size) == (15, False, 7)


@pytest.mark.parametrize("flags", [*NORMS.values(), RELATIVE], ids=[*NORMS, "relative"])
@pytest.mark.parametrize("arch", [OFFLINE, STREAMS])
@torch.no_grad()
def test_half_precision_is_close(build: Build, arch: str, flags: str) -> None:
    model, batch = build(arch, f"{KERNEL} {NO_DROPOUT} {flags}").model, padded(sentences())
    batch["src_tokens"] = batch["src_tokens"].float().clamp(-3, 3)
    real = torch.arange(16).unsqueeze(1) < torch.tensor([16, 10, 5, 1])
    expected = model.encoder(**batch)["encoder_out"][0][real]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model.encoder(**batch)["encoder_out"][0][real].float(), expected, rtol=0, atol=0.15)
    found = model.bfloat16().encoder(**batch)["encoder_out"][0]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found[real].float(), expected, rtol=0, atol=0.15)


@pytest.mark.parametrize("arch", [STREAMS, pytest.param(OFFLINE, marks=pytest.mark.slow)])
def test_a_trained_conformer_translates(train: Callable[..., Path], generate: Callable[..., Done], arch: str) -> None:
    done = generate(train(f"{KERNEL} {CTC}", arch=arch))
    assert done.code == 0, done.err
    assert len(done.hypotheses()) == 6


def test_a_trained_conformer_becomes_linear(train: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    flags = ["--data", corpus, "--config-yaml", "config.yaml", "--output", tmp_path / "linear.pt"]
    distil = ["--encoder-attn-type", "hedgehog", "--distill-updates", 2, "--train-subset", "train"]
    done = run("mla-linearize", train(f"{KERNEL} {CTC}", arch=STREAMS), *flags, *distil)
    assert done.code == 0, done.err
    assert "2 attention modules have another mechanism" in done.out
    model, _ = load_model(tmp_path / "linear.pt", {})
    assert all(isinstance(layer.self_attn.mechanism, Hedgehog) for layer in model.encoder.layers)


def test_relative_positions_cannot_become_linear(build: Build, corpus: Path, tmp_path: Path) -> None:
    save(build(OFFLINE, f"{KERNEL} {RELATIVE}"), tmp_path / "relative.pt")
    flags = ["--data", corpus, "--config-yaml", "config.yaml", "--output", tmp_path / "linear.pt"]
    done = run("mla-linearize", tmp_path / "relative.pt", *flags, "--attn-type", "relu")
    assert done.code == 1
    assert "--pos-enc-type rel_pos needs softmax attention in the encoder" in done.last_line
