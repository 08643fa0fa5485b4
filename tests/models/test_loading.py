"""A checkpoint may name only what evaluates no option, and an override has an effect or is an error."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils, tasks
from fairseq.models import ARCH_MODEL_REGISTRY, register_model, register_model_architecture
from fairseq.models.speech_to_text.s2t_transformer import S2TTransformerModel, base_architecture

from mla_fairseq.attention import LinearAttention, SoftmaxAttention
from mla_fairseq.errors import UserError
from mla_fairseq.models.loading import load_model
from mla_fairseq.streaming import Translator
from tests.models.conftest import SIZES, TRAINING
from tests.programs import Done, run

Train, Generate = Callable[..., Path], Callable[..., Done]
Change = Callable[..., Path]


def as_args(state: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint as fairseq wrote it until 2020: with one flat ``args``."""
    options = {key: value for key, value in vars(state["cfg"]["model"]).items() if not key.startswith("_")}
    return state | {"cfg": None, "args": Namespace(**options)}


FORMS = {"cfg": lambda state: state, "args": as_args}


@pytest.fixture(scope="module")
def stock(train: Train) -> Path:
    """Train a checkpoint of fairseq's own model and task."""
    return train(arch="s2t_transformer", task="speech_to_text")


@pytest.fixture
def change(stock: Path, tmp_path: Path) -> Change:
    """``change(form, **options)``: a copy of the stock checkpoint with other options, in a form of fairseq's."""

    def change(form: str = "cfg", section: str = "model", **options: object) -> Path:
        state = torch.load(stock, weights_only=True)
        held = state["cfg"][section]
        (vars(held) if isinstance(held, Namespace) else held).update(options)
        torch.save(FORMS[form](state), tmp_path / "changed.pt")
        return tmp_path / "changed.pt"

    return change


def load(path: Path, overrides: dict[str, object] | None = None) -> Any:
    """Return the model that fairseq's commands build from a checkpoint."""
    return checkpoint_utils.load_model_ensemble([str(path)], overrides)[0][0]


def mechanisms(model: Any) -> list[type]:
    layer = model.decoder.layers[0]
    sites = (model.encoder.transformer_layers[0].self_attn, layer.self_attn, layer.encoder_attn)
    return [type(site.mechanism) for site in sites]


@pytest.mark.parametrize("key", ["_name", "arch"])
@pytest.mark.parametrize("form", FORMS)
def test_the_architecture_changes_in_both_forms_of_checkpoints(change: Change, form: str, key: str) -> None:
    path = change(form)
    assert type(load(path)) is S2TTransformerModel
    assert mechanisms(load(path, {key: "s2t_transformer_mla"})) == [SoftmaxAttention] * 3
    relu = load(path, {key: "s2t_transformer_mla", "attn_type": "relu"})
    assert all(issubclass(mechanism, LinearAttention) for mechanism in mechanisms(relu))
    with pytest.raises(UserError, match="names two architectures"):
        load(path, {"_name": "s2t_transformer_mla", "arch": "s2t_transformer"})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"attn_type": "relu"}, "'attn_type', which is not an option of s2t_transformer: add '_name': 's2t_tran"),
        ({"_name": "s2t_transformer_mla", "atn_type": "relu"}, "'atn_type', which is not .*: did you mean 'attn_type'"),
        ({"_name": "s2t_transformer_mla", "gla_temperature": 2.0}, "'gla_temperature', which has no"),
        (
            {"_name": "s2t_transformer_mla", "attn_type": "relu"}
            | dict.fromkeys(("encoder_attn_type", "decoder_attn_type", "cross_attn_type"), "elu"),
            "'attn_type', which has no effect, because the model has encoder_attn_type elu",
        ),
    ],
    ids=["stock-name", "typo", "absent-mechanism", "every-site-named"],
)  # fmt: skip
def test_an_override_without_effect_is_an_error(change: Change, form: str, overrides: dict, words: str) -> None:
    with pytest.raises(UserError, match=f"^error: --model-overrides names {words}"):
        load(change(form), overrides)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"no_scale_embedding": "False"}, "has 'no_scale_embedding': 'False': give True or False"),
        ({"no_token_positional_embeddings": "False"}, "has 'no_token.*: 'False': give True or False"),
        ({"dropout": "x"}, "has 'dropout': 'x': give a number"),
        ({"decoder_layerdrop": "x"}, "has 'decoder_layerdrop': 'x': give a number"),
        ({"activation_fn": "x"}, "has 'activation_fn': 'x': give one of relu"),
        ({"_name": "s2t_transformer_mla", "encoder_chunk_size": "x"}, "has 'encoder_chunk_size': 'x': give an integer"),
        ({"_name": "s2t_transformer_mla", "attn_type": None}, "has 'attn_type': None: give "),
        ({"conv_kernel_sizes": 5}, "has 'conv_kernel_sizes': 5: give a text"),
        (5, "is 5: give a Python dictionary"),
        ([], r"is \[\]: give a Python dictionary"),
    ],
    ids=str,
)
def test_an_override_of_another_type_is_an_error(change: Change, form: str, overrides: Any, words: str) -> None:
    with pytest.raises(UserError, match=f"^error: --model-overrides {words}"):
        load(change(form), overrides)
    with pytest.raises(ValueError, match=f"^--model-overrides {words}"):
        load_model(change(form), overrides)


@pytest.mark.parametrize("options", [{"encoder_attention_heads": 0}, {"activation_fn": "x"}], ids=str)
def test_an_option_that_breaks_the_build_names_the_file(change: Change, options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"^error: .*changed\.pt (asks|has an unknown activation_fn)"):
        load(change(**options))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder_layers": "x"}, "asks for another size"),
        ({"decoder_layers": -1}, "asks for another size"),
        ({"conv_kernel_sizes": "5,a"}, "asks for another size"),
        ({"dropout": "nan"}, r"has a wrong option \(dropout='nan', but it must be a number\)"),
        ({"dropout": float("nan")}, r"has a wrong option \(dropout='nan', but it must be a number\)"),
        ({"attention_dropout": 1.5}, r"has a wrong option \(attention_dropout='1.5', but it must be from 0 to 1\)"),
        ({"encoder_normalize_before": 7}, r"has a wrong option \(encoder_norm.*='7', but it must be True or False\)"),
        ({"encoder_freezing_updates": [1]}, r"has a wrong option \(encoder_freezing_updates=.*must be an integer"),
        ({"conv_version": "x"}, r"has a wrong option \(conv_version='x', but it must be one of "),
        ({"conv_kernel_sizes": "4,4"}, "has options that make no model|the checkpoint is of another model"),
        ({"encoder_embed_dim": 15}, "has options that make no model|asks for another size"),
    ],
    ids=str,
)
def test_options_that_make_no_model_are_one_line(change: Change, form: str, options: dict, words: str) -> None:
    """Whatever fails when fairseq builds the model, and for a stock model as for one of this package."""
    path = change(form, **options)
    with pytest.raises(UserError, match=words) as found:
        load(path)
    assert "\n" not in str(found.value)
    with pytest.raises(ValueError, match=words) as raised:
        load_model(path, {})
    assert "\n" not in str(raised.value)


def test_a_missing_option_is_one_line(stock: Path, corpus: Path, tmp_path: Path, generate: Generate) -> None:
    state = torch.load(stock, weights_only=True)
    del state["cfg"]["model"].max_source_positions
    torch.save(state, tmp_path / "cut.pt")
    done = generate(tmp_path / "cut.pt")
    assert done.code == 1 and "Traceback" not in done.err
    assert done.last_line.startswith(f"error: {tmp_path / 'cut.pt'} has options that make no model")
    assert "max_source_positions" in done.last_line


def test_the_broken_file_of_an_ensemble_is_named(change: Change, stock: Path) -> None:
    state = torch.load(change(), weights_only=True)
    del state["cfg"]["model"].max_source_positions
    torch.save(state, broken := change().with_name("broken.pt"))
    with pytest.raises(UserError, match=r"^error: \S*broken\.pt has options that make no model"):
        checkpoint_utils.load_model_ensemble([str(stock), str(broken)])


@pytest.mark.parametrize("option", ["target_length", "target_length_fixed", "source_length"])
def test_a_length_that_no_attention_uses_is_an_error(change: Change, option: str) -> None:
    overrides = {"_name": "s2t_transformer_mla", option: "fixed" if option == "target_length" else 9}
    words = rf"changed\.pt: --model-overrides names '{option}', which has no effect, because no attention of the model"
    with pytest.raises(UserError, match=words):
        load(change(), overrides)
    with pytest.raises(ValueError, match=words):
        load_model(change(), overrides)
    if option != "target_length_fixed":
        load(change(), overrides | {"attn_type": "cosformer"})
    else:
        with pytest.raises(UserError, match="which has no effect, because target_length is 'ratio'"):
            load(change(), overrides | {"attn_type": "cosformer"})
        for rule in ("fixed", "ratio"):  # whoever names the rule may give numbers for several
            load(change(), overrides | {"attn_type": "cosformer", "target_length": rule})


@pytest.mark.parametrize(
    ("simul_type", "overrides", "words"),
    [
        ("waitk", {"waitk_lagging": "0"}, "--waitk-lagging must be K or LOWEST-HIGHEST"),
        ("waitk", {"waitk_lagging": "x"}, "--waitk-lagging must be a number such as 3"),
        (
            "waitk",
            {"noise_var": 0.5},
            "names 'noise_var', which has no effect, because .* simul_type 'waitk'",
        ),
        ("waitk", {"fixed_pre_decision_ratio": 3}, "names 'fixed_pre_decision_ratio', which has no effect"),
        ("hard_aligned", {"waitk_lagging": "2"}, "names 'waitk_lagging', which has no effect"),
        ("hard_aligned_fixed_pre_decision", {"mocha_chunk_size": 2}, "names 'mocha_chunk_size', which has no effect"),
    ],
)
def test_an_override_of_another_policy_is_an_error(
    build, tmp_path: Path, simul_type: str, overrides: dict, words: str
) -> None:
    flags = f"--simul-type {simul_type} --fixed-pre-decision-ratio 2"
    built = build("s2t_transformer_simul_mla", flags)
    options = Namespace(**vars(built.args))
    history = [{"optimizer_name": "", "lr_scheduler_state": {}}]
    state = {"args": options, "model": built.model.state_dict(), "optimizer_history": history, "extra_state": {}}
    torch.save(state, tmp_path / "simul.pt")
    with pytest.raises(ValueError, match=words):
        load_model(tmp_path / "simul.pt", overrides)


def test_what_a_command_has_chosen_is_not_overridden(stock: Path, corpus: Path, generate: Generate) -> None:
    for option in ("task", "data", "user_dir"):
        done = generate(stock, ["--model-overrides", f"{{'{option}': 'x'}}"])
        assert done.code == 1 and f"--model-overrides names '{option}', which has no effect" in done.last_line
        with pytest.raises(ValueError, match=f"names '{option}', which has no effect"):
            Translator.load(stock, corpus, "config.yaml", {option: "x"})


def test_an_empty_name_in_an_ensemble_is_told(stock: Path, generate: Generate) -> None:
    done = generate(f"{stock}:")
    assert done.code == 1
    assert done.last_line == f"error: the list of checkpoints has an empty name ('{stock}:'): remove a colon"


def test_options_of_commands_may_be_overridden(change: Change) -> None:
    """``fairseq-validate`` overrides with all flags of its command line."""
    load(change(), {"max_tokens": 100, "batch_size": 1, "config_yaml": "config.yaml", "task": "speech_to_text_mla"})


PAYLOADS = {
    "fconv": {"encoder_layers": "{}", "decoder_layers": "{}", "decoder_attention": "{}"},
    "fconv_self_att_wp": {"pretrained": "{}", "encoder_layers": "{}"},
    "wav2vec2": {"conv_feature_layers": "{}"},
    "fconv_lm": {"decoder_layers": "{}", "decoder_attention": "{}"},
    "lstm": {"decoder_attention": "{}", "encoder_layers": 1},
    "transformer": {"adaptive_softmax_cutoff": "{}"},
    "s2t_transformer": {"adaptive_softmax_cutoff": "{}"},
    "s2t_transformer_s": {"encoder_xformers_att_config": "{}"},
    "convtransformer": {"decoder_xformers_att_config": "{}"},
    "tts_transformer": {"encoder": {"xformers_att_config": "{}"}},
}
"""Architectures, and options of theirs that fairseq evaluates."""


def payload(value: object, place: Path) -> Any:
    """Return a value whose braces are code that makes a folder, which tests can look for."""
    if isinstance(value, dict):
        return {key: payload(x, place) for key, x in value.items()}
    return value.replace("{}", f"__import__('os').mkdir({str(place)!r})") if isinstance(value, str) else value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_checkpoint_cannot_choose_a_model_that_evaluates_its_options(
    change: Change, tmp_path: Path, form: str, name: str
) -> None:
    path = change(form, _name=name, arch=name, **payload(PAYLOADS[name], tmp_path / "it-ran"))
    with pytest.raises(UserError, match=r"changed\.pt has (the architecture|an option that fairseq would run)"):
        load(path)
    with pytest.raises(ValueError, match=r"changed\.pt has|the checkpoint has an option that is not supported"):
        load_model(path, {})
    assert not (tmp_path / "it-ran").exists()


def test_the_payload_runs_where_fairseq_builds_it(change: Change, tmp_path: Path) -> None:
    """Without this, the tests above could not fail."""
    options = torch.load(change(), weights_only=True)["cfg"]["model"]
    vars(options).update(payload(PAYLOADS["s2t_transformer"], tmp_path / "it-ran"))
    with pytest.raises(TypeError):  # what the payload returns is no list
        tasks.setup_task(options).build_model(options)
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("form", FORMS)
def test_every_option_that_is_evaluated_somewhere_in_fairseq_is_harmless(
    change: Change, tmp_path: Path, form: str
) -> None:
    """A model of this package follows none of them."""
    names = ("decoder_attention", "pretrained", "wer_args", "left_pad_source", "adam_betas", "character_filters")
    evil = payload(dict.fromkeys(names, "{}"), tmp_path / "it-ran")
    load(change(form, **evil), {"_name": "s2t_transformer_mla"})
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"encoder_layers": 10**9},
        {"decoder_layers": 3},
        {"encoder_embed_dim": 10**6},
        {"decoder_ffn_embed_dim": 33},
        {"conv_channels": 10**7},
        {"conv_version": "convtransformer", "conv_out_channels": 10**6},
        {"conv_kernel_sizes": "5,1000000000"},
        {"conv_kernel_sizes": ",".join("5" * 10_000)},
        {"input_channels": 0, "input_feat_per_channel": 10**9},
        {"max_source_positions": 10**10},
        {"encoder_layers": "10"},
        {"decoder_attention_heads": -1},
        {"decoder_attention_heads": None},
        {"encoder_layers": None},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_ask_for_more_than_the_weights_are_refused(change: Change, form: str, options: dict) -> None:
    option = list(options)[-1]
    for overrides in ({}, {"_name": "s2t_transformer_mla"}):
        with pytest.raises(UserError, match=rf"changed\.pt asks for another size than its weights have \({option}="):
            load(change(form, **options), overrides)


def test_a_task_and_a_criterion_that_evaluate_options_are_not_built(change: Change, tmp_path: Path) -> None:
    evil = payload({"_name": "ctc", "wer_args": "{}"}, tmp_path / "it-ran")
    _, cfg, task = checkpoint_utils.load_model_ensemble_and_task([str(change(section="criterion", **evil))])
    assert cfg.criterion is None and type(task).__name__ == "SpeechToTextTask"
    evil = payload({"task": "multilingual_translation", "left_pad_source": "{}"}, tmp_path / "it-ran")
    for form in FORMS:
        path = change(form, **evil) if form == "args" else change(form, "task", **evil)
        _, _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)])
        assert type(task).__name__ == "SpeechToTextMLATask"
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("name", ["own_sizes", "own_model"])
def test_what_a_user_registers_may_be_named(change: Change, name: str) -> None:
    """``own_sizes`` are of a stock model, ``own_model`` is the user's class."""
    if name not in ARCH_MODEL_REGISTRY:
        model = "s2t_transformer"
        if name == "own_model":
            register_model(model := name)(type("OwnModel", (S2TTransformerModel,), {"__module__": "somebody"}))
        register_model_architecture(model, name)(lambda args: base_architecture(args))
    path = change(_name=name, arch=name)
    assert isinstance(load(path), S2TTransformerModel)
    if name == "own_sizes":
        assert mechanisms(load_model(path, {})[0]) == [SoftmaxAttention] * 3


@pytest.mark.parametrize("broken", [{"_name": None, "arch": None}, {"_name": 3}, {"_name": ["fconv"], "arch": "fconv"}])
def test_a_name_that_is_none_is_refused(change: Change, broken: dict) -> None:
    with pytest.raises(UserError, match="unknown architecture"):
        load(change(**broken))


@pytest.mark.parametrize("overrides", [{}, {"_name": "s2t_transformer_mla"}], ids=["stock", "ours"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options",
    [{"seed": "${x", "lr": "["}, {"optimizer": 3}, {"task": None, "save_dir": "'"}, {"task": [1]}, {"attn_type": [1]}],
    ids=str,
)
def test_options_that_fairseq_cannot_read_are_one_line(
    change: Change, form: str, options: dict, overrides: dict
) -> None:
    try:
        load(change(form, **options), overrides)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.fixture
def evil(change: Change, tmp_path: Path) -> Path:
    """A checkpoint that runs code in fairseq without this package."""
    return change(_name="fconv", arch="fconv", **payload(PAYLOADS["fconv"], tmp_path / "it-ran"))


COMMAND = ["--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING, "--max-update", 1]
PROGRAMS = {
    "generate": ["fairseq-generate", "{data}", "--task", "speech_to_text_mla", "--path", "{file}"],
    "validate": ["fairseq-validate", "{data}", "--task", "speech_to_text_mla", "--path", "{file}", "--batch-size", 1],
    "finetune": ["fairseq-train", "{data}", *COMMAND, "--finetune-from-model", "{file}", "--save-dir", "{out}"],
    "restore": ["fairseq-train", "{data}", *COMMAND, "--restore-file", "{file}", "--save-dir", "{out}"],
    "linearize": ["mla-linearize", "{file}", "--data", "{data}", "--config-yaml", "config.yaml", "--attn-type", "relu"],
    "synthesize": ["mla-synthesize", "{file}", "--data", "{data}", "--text", "a", "--output", "{out}"],
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_command_runs_code_of_a_checkpoint(evil: Path, corpus: Path, tmp_path: Path, program: str) -> None:
    places = {"{data}": corpus, "{file}": evil, "{out}": tmp_path / "out"}
    words = [places.get(str(word), word) for word in PROGRAMS[program]]
    done = run(*words, *(["--output", tmp_path / "new.pt"] if program == "linearize" else []))
    assert done.code == 1 and "Traceback" not in done.err, done.err
    assert f"{evil} has the architecture fconv" in done.last_line
    assert not (tmp_path / "it-ran").exists() and not (tmp_path / "new.pt").exists()


def test_a_resumed_training_runs_no_code_of_its_checkpoint(evil: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    evil.rename(tmp_path / "out" / "checkpoint_last.pt")
    done = run("fairseq-train", corpus, COMMAND, "--save-dir", tmp_path / "out")
    assert done.code == 1 and "checkpoint_last.pt" in done.last_line and "Traceback" not in done.err
    assert not (tmp_path / "it-ran").exists()


def test_validation_takes_another_criterion_than_an_unsafe_one(change: Change, corpus: Path, tmp_path: Path) -> None:
    path = change(section="criterion", **payload({"_name": "ctc", "wer_args": "{}"}, tmp_path / "it-ran"))
    command = [corpus, "--task", "speech_to_text_mla", "--path", path, "--batch-size", 1, "--valid-subset", "dev"]
    done = run("fairseq-validate", command)
    assert done.code == 1 and "Traceback" not in done.err
    assert done.last_line.endswith("a criterion that is not supported here: name another with --criterion")
    done = run("fairseq-validate", command, "--criterion", "cross_entropy")
    assert done.code == 0, done.err
    assert not (tmp_path / "it-ran").exists()
