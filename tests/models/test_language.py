"""A language model of fairseq changes what fairseq-generate finds, and no option of its file is evaluated."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils, tasks
from fairseq.data import Dictionary, indexed_dataset

from mla_fairseq.errors import UserError
from mla_fairseq.models.loading import load_model
from tests.models.test_loading import payload
from tests.programs import run

FLAGS = (
    "--task language_modeling --arch transformer_lm --decoder-layers 1 --decoder-embed-dim 16 "
    "--decoder-attention-heads 2 --decoder-ffn-embed-dim 16 --tokens-per-sample 20 --optimizer adam --lr 0.01 "
    "--batch-size 8 --max-update 120 --dropout 0 --cpu --num-workers 0 --disable-validation --no-progress-bar "
    "--required-batch-size-multiple 1"
)
SENTENCE = "w05 w06 w07 w08"


@pytest.fixture(scope="module")
def lm(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a language model that knows one sentence, by fairseq's own task."""
    folder = tmp_path_factory.mktemp("lm")
    dictionary = Dictionary.load(str(corpus / "dict.txt"))
    builder = indexed_dataset.make_builder(f"{folder}/train.bin", "mmap", len(dictionary))
    for _ in range(8):
        builder.add_item(dictionary.encode_line(SENTENCE, add_if_not_exist=False))
    builder.finalize(f"{folder}/train.idx")
    dictionary.save(str(folder / "dict.txt"))
    done = run("fairseq-train", folder, FLAGS.split(), "--save-dir", folder)
    assert done.code == 0, done.err
    return folder / "checkpoint_last.pt"


def as_args(state: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint as fairseq wrote it until 2020."""
    options = dict(state["cfg"]["model"], arch="transformer_lm", task="language_modeling")
    options.pop("_name", None)
    return state | {"cfg": None, "args": Namespace(**options)}


FORMS: dict[str, Callable] = {"cfg": lambda state: state, "args": as_args}


@pytest.fixture
def change(lm: Path, tmp_path: Path) -> Callable[..., Path]:
    """``change(form, **options)``: a copy of the language model with other options."""

    def change(form: str = "cfg", **options: object) -> Path:
        state = torch.load(lm, weights_only=True)
        state["cfg"]["model"].update(options)
        torch.save(FORMS[form](state), tmp_path / "changed.pt")
        return tmp_path / "changed.pt"

    return change


def load(path: Path, data: Path) -> Any:
    """Return a language model as ``fairseq-generate --lm-path`` loads it."""
    return checkpoint_utils.load_model_ensemble([str(path)], {"attn_type": "relu", "data": str(data)})[0][0]


def test_a_language_model_changes_the_translations(train, generate, change) -> None:
    """Its weight decides: with a large one only its sentence is left."""
    path = train("--dropout 0.3 --attention-dropout 0.3 --activation-dropout 0.3 --max-update 16")
    plain = generate(path)
    assert plain.code == 0, plain.err
    texts = []
    for form, weight in (("cfg", 1e-6), ("cfg", 100), ("args", 100)):
        overrides = ["--model-overrides", "{'attn_type': 'softmax'}"]
        done = generate(path, ["--lm-path", change(form), "--lm-weight", weight], *overrides)
        assert done.code == 0, done.err
        texts.append([text for _, _, text in done.hypotheses()])
    assert texts[0] == [text for _, _, text in plain.hypotheses()]
    assert texts[1] == texts[2] == [SENTENCE] * 6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"character_embeddings": True, "character_filters": "{}"},
        {"adaptive_input": True, "adaptive_input_cutoff": "{}"},
        {"adaptive_input_cutoff": "{}"},
        {"adaptive_softmax_cutoff": "{}"},
        {"decoder_xformers_att_config": "{}"},
        {"decoder": {"xformers_att_config": "{}"}},
    ],
    ids=lambda options: list(options)[-1],
)
def test_no_option_of_a_language_model_is_evaluated(
    change, corpus: Path, tmp_path: Path, form: str, options: dict
) -> None:
    path = change(form, **payload(options, tmp_path / "it-ran"))
    with pytest.raises(UserError, match=r"changed\.pt has an option that (is not supported in a|fairseq would run)"):
        load(path, corpus)
    assert not (tmp_path / "it-ran").exists()


def test_the_payload_runs_where_fairseq_builds_it(change, corpus: Path, tmp_path: Path) -> None:
    """Without this, the test above could not fail."""
    evil = payload({"character_embeddings": True, "character_filters": "{}"}, tmp_path / "it-ran")
    options = Namespace(**torch.load(change(**evil), weights_only=True)["cfg"]["model"])
    task = tasks.setup_task(Namespace(task="language_modeling", data=str(corpus)))
    with pytest.raises(TypeError):  # what the payload returns is no list
        task.build_model(options)
    assert (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("form", FORMS)
def test_the_task_of_the_file_is_not_built(lm: Path, corpus: Path, tmp_path: Path, form: str) -> None:
    state = FORMS[form](torch.load(lm, weights_only=True))
    evil = payload({"task": "multilingual_translation", "left_pad_source": "{}"}, tmp_path / "it-ran")
    if form == "args":
        vars(state["args"]).update(evil)
    else:
        state["cfg"]["task"] = Namespace(**evil)
    torch.save(state, tmp_path / "lm.pt")
    load(tmp_path / "lm.pt", corpus)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decoder_layers": 10**9}, "asks for another size than its weights have"),
        ({"decoder_embed_dim": 10**6}, "asks for another size than its weights have"),
        ({"decoder_input_dim": 32}, "has options that make no model"),
        ({"dropout": "x"}, "has a wrong option"),
        ({"base_layers": 1}, "has an option that is not supported in a language model"),
    ],
    ids=str,
)
def test_options_that_make_no_language_model_are_one_line(change, corpus: Path, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=rf"^error: \S*changed\.pt {words}"):
        load(change(**options), corpus)


def test_a_language_model_needs_the_symbols_of_the_model(
    lm: Path, train, generate, corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--lm-path needs the symbols of the language model .*dict.txt is missing"):
        load(lm, tmp_path)
    for path in corpus.iterdir():
        (tmp_path / path.name).symlink_to(path)
    lines = (corpus / "dict.txt").read_text().splitlines()
    (tmp_path / "dict.txt").unlink()
    (tmp_path / "dict.txt").write_text("\n".join(reversed(lines)) + "\n")
    (tmp_path / "vocabulary.txt").write_text("\n".join(lines) + "\n")
    config = (corpus / "config.yaml").read_text().replace("dict.txt", "vocabulary.txt")
    (tmp_path / "other.yaml").write_text(config)
    path = train("--dropout 0.3 --attention-dropout 0.3 --activation-dropout 0.3 --max-update 16")
    command = ["--task", "speech_to_text_mla", "--config-yaml", "other.yaml", "--gen-subset", "dev", "--cpu"]
    done = run("fairseq-generate", tmp_path, command, "--path", path, "--lm-path", lm, "--lm-weight", 1)
    assert done.code == 1
    assert done.last_line.startswith("error: --lm-path has other symbols than the model (dict.txt of the data folder)")


def test_a_broken_dictionary_beside_a_language_model_is_named(lm: Path, tmp_path: Path) -> None:
    for content in (b"\xff\xfe", b"nonsense\n"):
        (tmp_path / "dict.txt").write_bytes(content)
        with pytest.raises(UserError, match=rf"^error: {tmp_path}/dict\.txt is not a dictionary \(.*: copy that"):
            load(lm, tmp_path)


def test_a_translation_model_is_no_language_model(train, generate, corpus: Path) -> None:
    path = train("--dropout 0.3 --attention-dropout 0.3 --activation-dropout 0.3 --max-update 16")
    done = generate(path, ["--lm-path", path, "--lm-weight", 1])
    assert done.code == 1 and "--lm-path has no language model (S2TTransformerMLAModel): give a" in done.last_line
    for name in (f"{path}:{path}", "/nope.pt"):
        done = generate(path, ["--lm-path", name, "--lm-weight", 1])
        assert done.code == 1 and done.last_line == f"error: no checkpoint {name}: it is missing, check the path"


def test_a_language_model_translates_nothing(lm: Path, corpus: Path, generate) -> None:
    done = generate(lm)
    assert done.code == 1 and f"{lm} has the architecture transformer_lm, which is not supported" in done.last_line
    done = generate(lm, ["--model-overrides", f"{{'data': '{corpus}'}}"])
    assert done.code == 1 and "names 'data', which has no effect" in done.last_line
    done = run("fairseq-validate", corpus, "--task", "speech_to_text_mla", "--path", lm, "--batch-size", 1, "--cpu")
    assert done.code == 1 and "has the architecture transformer_lm" in done.last_line
    with pytest.raises(ValueError, match="has the architecture transformer_lm, which is not supported"):
        load_model(lm, {"data": str(corpus)})
