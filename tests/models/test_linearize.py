"""Convert a softmax model to a linear one: parameters are kept, and the new attention learns the old outputs."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from mla_fairseq.attention import Decay, Hedgehog, SoftmaxAttention
from mla_fairseq.checkpoints import saved_options
from mla_fairseq.models.linearize import Distillation, batches, convert, converted
from tests.models.conftest import SIZES, TRAINING, Build
from tests.models.test_commands import Train, check_hypotheses, parameters
from tests.programs import Done, run


@pytest.fixture(scope="module")
def task(build: Build):
    return build().task


def distillation(path: Path, task, **changes: str) -> tuple[Distillation, list[str]]:
    _, student, teacher = convert(path, task, changes)
    names = converted(student, teacher, Namespace(), Namespace(**changes))
    return Distillation(student, teacher, names, lr=3e-3), names


@pytest.mark.parametrize("arch", ["s2t_transformer", "s2t_transformer_mla"])
def test_every_parameter_is_kept(train: Train, task, arch: str) -> None:
    path = train(arch=arch)
    state, student, _ = convert(path, task, {"encoder_attn_type": "hedgehog", "decoder_attn_type": "decay"})
    before = parameters(path)
    for name, tensor in state["model"].items():
        assert name in before or ".mechanism." in name
        assert name not in before or torch.equal(tensor, before[name])
    mechanisms = [layer.self_attn.mechanism for layer in (*student.encoder.transformer_layers, *student.decoder.layers)]
    assert [type(mechanism) for mechanism in mechanisms] == [Hedgehog] * 2 + [Decay] * 2
    assert isinstance(student.decoder.layers[0].encoder_attn.mechanism, SoftmaxAttention)
    options = saved_options(state)
    assert (options.encoder_attn_type, options._name) == ("hedgehog", "s2t_transformer_mla")
    assert (options.decay_min_half_life, options.decay_max_half_life) == (0, 0), "today's default, not version 0.1's"


@pytest.mark.parametrize("mechanism", ["hedgehog", "elu", "cosformer", "leap"])
def test_attention_learns_the_old_outputs(train: Train, task, mechanism: str) -> None:
    teaching, names = distillation(train(), task, attn_type=mechanism)
    assert len(names) == 6
    before = {name: parameter.clone() for name, parameter in teaching.student.named_parameters()}
    if "train" not in task.datasets:
        task.load_dataset("train")
    losses = list(teaching.run(batches(task, "train", 400, 60)))
    assert set(losses[0]) == set(names)
    first, last = (sum(sum(step.values()) for step in part) for part in (losses[:5], losses[-5:]))
    assert last < 0.9 * first
    for name, parameter in teaching.student.named_parameters():
        learns = any(part in name for part in ("q_proj", "k_proj", "mechanism"))
        assert learns or torch.equal(parameter, before[name]), f"{name} does not determine attention weights"


def test_a_module_learns_from_the_inputs_of_the_teacher(train: Train, task) -> None:
    """Errors of one module do not reach the next: the student's scores are the teacher's."""
    teaching, _ = distillation(train(), task, attn_type="relu")
    if "train" not in task.datasets:
        task.load_dataset("train")
    (batch,) = batches(task, "train", 400, 1)
    with torch.no_grad():
        expected = teaching.teacher(**batch["net_input"])[0]
        torch.testing.assert_close(teaching.student(**batch["net_input"])[0], expected)
    assert all(float(loss) > 1e-6 for loss in teaching.losses.values())


def test_an_encoder_that_was_frozen_at_first_is_trained(train: Train, task) -> None:
    teaching, names = distillation(train("--encoder-freezing-updates 100"), task, encoder_attn_type="elu")
    before = [teaching.student.get_submodule(name).q_proj.weight.clone() for name in names]
    if "train" not in task.datasets:
        task.load_dataset("train")
    list(teaching.run(batches(task, "train", 400, 2)))
    assert all(
        not torch.equal(teaching.student.get_submodule(name).q_proj.weight, weight)
        for name, weight in zip(names, before, strict=True)
    )


def test_lengths_are_measured_in_distillation(train: Train, task) -> None:
    """Otherwise a cosFormer model could not decode: its length rule uses the ratio that training measured."""
    teaching, _ = distillation(train(), task, attn_type="cosformer")
    rule = teaching.student.decoder.length_rule
    with pytest.raises(ValueError, match="measured no target length"):
        rule.check()
    if "train" not in task.datasets:
        task.load_dataset("train")
    list(teaching.run(batches(task, "train", 400, 2)))
    rule.check()
    assert 0.05 < rule.ratio < 5


def linearize(*arguments: object) -> Done:
    return run("mla-linearize", *arguments)


def test_the_checkpoint_of_the_command_decodes_and_trains(train: Train, generate, corpus: Path, tmp_path: Path) -> None:
    path, output = train(), tmp_path / "linear.pt"
    data = ["--data", corpus, "--config-yaml", "config.yaml", "--train-subset", "train", "--max-tokens", 400]
    done = linearize(path, *data, "--attn-type", "hedgehog", "--distill-updates", 2, "--output", output)
    assert done.code == 0, done.err
    assert "6 attention modules have another mechanism" in done.out
    check_hypotheses(generate(output))
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
    more = ["--attn-type", "hedgehog", "--finetune-from-model", output, "--max-update", 2, "--save-dir", tmp_path]
    done = run("fairseq-train", command, more)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attn-type", "softmax"], "error: every site has the mechanism already"),
        (["--attn-type", "sofmax"], "error: unknown attention 'sofmax': choose one of"),
        (
            ["--attn-type", "relu", "--set", "target_length"],
            "error: --set target_length: write it as OPTION=VALUE",
        ),
        (
            ["--attn-type", "cosformer", "--set", "target_lenght=fixed"],
            "error: --set target_lenght=fixed: there is no such option: did you mean target_length?",
        ),
        (
            ["--attn-type", "cosformer", "--set", "target_length_fixed=abc"],
            "error: --set target_length_fixed=abc: invalid int value: 'abc'",
        ),
        (
            ["--attn-type", "relu", "--set", "target_length_fixed=3"],
            "error: --set names 'target_length_fixed', which has no effect, because no attention of the model measures",
        ),
        (
            ["--attn-type", "relu", "--set", "gla_temperature=3"],
            "error: --set names 'gla_temperature', which has no effect, because the model has no gla attention",
        ),
        (["--attn-type", "relu", "--distill-updates", "-1"], "error: --distill-updates is -1: give 0 or more"),
        (["--cross-attn-type", "gla"], "error: --cross-attn-type is gla"),
        (
            ["--encoder-attn-type", "decay"],
            "error: --encoder-attn-type decay fades with every state, so it needs a simultaneous model with a chunked "
            "encoder (s2t_transformer_simul_mla): use another mechanism for the encoder",
        ),
        (
            ["--encoder-attn-type", "decay", "--set", "encoder_chunk_size=7"],
            "error: --set encoder_chunk_size=7: only training sets it: train s2t_transformer_simul_mla with it",
        ),
        (["--attn-type", "relu", "--user-dir", "/nope"], "error: --user-dir is /nope, which does not exist: name"),
        (
            ["--attn-type", "relu", "--train-subset", "train", "--distill-updates", "2", "--max-tokens", "1"],
            "error: --max-tokens is 1, but train has an utterance of ",
        ),
    ],
    ids=lambda value: "-".join(value[-2:]) if isinstance(value, list) else "",
)
def test_wrong_options_end_with_one_line(
    train: Train, corpus: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    output = tmp_path / "linear.pt"
    done = linearize(train(), "--data", corpus, "--config-yaml", "config.yaml", *arguments, "--output", output)
    assert done.code == 1
    assert done.last_line.startswith(message)
    assert not output.exists()
