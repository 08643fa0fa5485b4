"""Reading recipes: what may be said, what is inherited, and one clear line for everything else."""

from pathlib import Path

import pytest

from mla_fairseq.recipes.keys import describe_keys
from mla_fairseq.recipes.loader import load_recipe
from mla_fairseq.recipes.schema import KINDS

ROOT = Path(__file__).resolve().parents[2]
VARIABLES = {"DATA": "/corpora", "RUNS": "runs"}
BASES = ("base", "tiny", "tiny_tts")  # what recipes share; no experiments themselves
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.stem not in BASES)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_of_the_project_loads(path):
    recipe = load_recipe(path, VARIABLES)
    assert recipe.name == path.stem
    assert recipe.train.max_update > 0
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_the_file_wins_over_its_base_and_keeps_the_rest(write, small):
    write("base.yaml", "train: {lr: 0.5, seed: 7}\nmodel: {attn_type: softmax}")
    write("middle.yaml", "base: base.yaml\ntrain: {seed: 8}")
    recipe = load_recipe(write("top.yaml", small + "base: middle.yaml\nmodel: {cross_attn_type: relu}"), VARIABLES)
    assert (recipe.train.lr, recipe.train.seed, recipe.train.max_update) == (0.5, 8, 10)
    assert (recipe.model.attn_type, recipe.model.cross_attn_type) == ("softmax", "relu")


def test_null_takes_an_inherited_value_away(write, small):
    write("base.yaml", small + "model: {attn_type: softmax, arch: s2t_transformer_s}")
    recipe = load_recipe(write("top.yaml", "base: base.yaml\nmodel: {attn_type: null}"), VARIABLES)
    assert recipe.model.attn_type is None
    assert recipe.model.arch == "s2t_transformer_s"


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        pytest.param("train.lr=2e-3", "train", "lr", 0.002, id="yaml-reads-2e-3-as-text"),
        pytest.param("train.clip_norm=5", "train", "clip_norm", 5.0, id="whole-number-as-float"),
        pytest.param("train.max_update=3e3", "train", "max_update", 3000, id="float-as-whole-number"),
        pytest.param("train.fp16=true", "train", "fp16", True, id="boolean"),
        pytest.param("model.attn_type=relu", "model", "attn_type", "relu", id="text"),
        pytest.param("run.threads=null", "run", "threads", None, id="none"),
        pytest.param("decode.extra.sampling=true", "decode", "extra", {"sampling": True}, id="mapping"),
    ],
)
def test_set_changes_one_key(write, small, override, section, key, value):
    recipe = load_recipe(write("a.yaml", small), VARIABLES, [override])
    found = getattr(getattr(recipe, section), key)
    assert found == value
    assert type(found) is type(value)
    assert recipe.overrides == (override,)


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        pytest.param("train: {lrr: 1}", [], ["train", "'lrr'", "mean 'lr'?", "max_update"], id="unknown-key"),
        pytest.param("trian: {lr: 1}", [], ["'trian'", "mean 'train'?", "decode"], id="unknown-section"),
        pytest.param("", ["train.lrr=1"], ["'lrr'", "mean 'lr'?"], id="unknown-key-in-set"),
        pytest.param("", ["trian.lr=1"], ["'trian'", "mean 'train'?"], id="unknown-section-in-set"),
        pytest.param("", ["lr=1"], ["section.key=value"], id="set-without-section"),
        pytest.param("", ["train.lr"], ["section.key=value"], id="set-without-value"),
        pytest.param("", ["train.lr=fast"], ["train.lr", "'fast'", "a number"], id="text-for-number"),
        pytest.param("", ["train.max_update=1.5"], ["train.max_update", "1.5", "whole number"], id="half-an-update"),
        pytest.param("", ["train.max_update=true"], ["train.max_update", "whole number"], id="boolean-for-number"),
        pytest.param("", ["model.arch=3"], ["model.arch", "must be text"], id="number-for-text"),
        pytest.param("", ["model.arch=null"], ["model.arch", "None", "must be text"], id="null-where-needed"),
        pytest.param("", ["data.cmvn=glob"], ["data.cmvn", "'glob'", "utterance, global"], id="not-a-choice"),
        pytest.param("", ["decode.beam=0"], ["decode.beam is 0", "at least 1"], id="too-little"),
        pytest.param("", ["model.attn_type=foo"], ["model.attn_type is 'foo'", "cosformer"], id="no-mechanism"),
        pytest.param("", ["data.pair=null"], ["data.pair", "missing"], id="required"),
        pytest.param("", ["average.last=6"], ["average.last is 6", "keeps only 5"], id="more-than-is-kept"),
        pytest.param("", ["data.corpus=/tmp/mine"], ["data.corpus is '/tmp/mine'", "a name"], id="corpus-is-a-path"),
        pytest.param("", ["data.corpus=.."], ["data.corpus is '..'", "a name"], id="corpus-is-the-folder-above"),
        pytest.param("kind: song", [], ["kind is 'song'", "translation, speech"], id="unknown-kind"),
        pytest.param("kind: [speech]", [], ["kind is ['speech']", "translation, speech"], id="kind-is-a-list"),
        pytest.param("score: {}\nkind: speech", [], ["'speech'", "no section 'score'"], id="section-of-another-kind"),
        pytest.param("kind: speech", [], ["data", "'pair'", "folder"], id="key-of-another-kind"),
        pytest.param("train: 5", [], ["'train'", "mapping"], id="section-is-a-number"),
        pytest.param("base: other.yaml", [], ["other.yaml does not exist", "a.yaml"], id="missing-base"),
        pytest.param("base: a.yaml", [], ["a.yaml", "its own base"], id="circle"),
        pytest.param("data: {root: '${CORPORA}'}", [], ["data.root", "export CORPORA="], id="variable-not-set"),
        pytest.param("train: {lr: [", [], ["a.yaml", "not valid YAML"], id="broken-yaml"),
    ],
)
def test_a_mistake_gives_one_line_with_its_mend(write, small, text, overrides, words):
    whole = text if text.startswith("train: {lr: [") else "\n".join(_merge_lines(small, text))
    with pytest.raises(ValueError, match=r".+") as caught:
        load_recipe(write("a.yaml", whole), VARIABLES, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def _merge_lines(base: str, text: str) -> list[str]:
    """The base's lines, those whose section the text says itself left out."""
    section = text.partition(":")[0]
    return [line for line in base.splitlines() if not section or not line.startswith(f"{section}:")] + [text]


def test_fairseqs_criterion_of_spectrograms_needs_what_it_knows():
    recipe, variables = "configs/tiny_tts.yaml", {"DATA": "data"}
    needed = ["data.corpus=x", "data.folder=x", "train.criterion=tacotron2"]
    with pytest.raises(ValueError, match=r"needs train\.guided_attention_loss_weight=null"):
        load_recipe(ROOT / recipe, variables, needed)
    needed += ["train.guided_attention_loss_weight=null", "model.extra.length_predictor=false"]
    assert load_recipe(ROOT / recipe, variables, needed).train.criterion == "tacotron2"


def test_missing_data_variable_names_the_mend(write, small):
    with pytest.raises(ValueError, match=r"DATA is not set: .*`export DATA="):
        load_recipe(write("a.yaml", small), {})


def test_a_missing_recipe_names_those_that_exist(write, small):
    path = write("there.yaml", small)
    with pytest.raises(ValueError, match=r"not_there\.yaml does not exist.*there\.yaml"):
        load_recipe(path.with_name("not_there.yaml"), VARIABLES)


def test_used_variables_are_remembered(write, small):
    assert load_recipe(write("a.yaml", small), VARIABLES).variables == {"DATA": "/corpora"}


def test_list_keys_shows_every_key():
    shown = describe_keys()
    for kind, sections in KINDS.items():
        part = shown.partition(f"kind: {kind}\n")[2].partition("\nkind: ")[0]
        for section, cls in sections.items():
            for key in cls.__dataclass_fields__:
                assert f"    {section}.{key} = " in part
