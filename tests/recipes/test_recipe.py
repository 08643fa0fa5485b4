"""Reading recipes: one base, ``--set``, variables, commands; every mistake is reported in one line."""

import shlex
from pathlib import Path

import pytest

from mla_fairseq.recipes import load_recipe
from mla_fairseq.recipes.stages import Stage, arguments

ROOT = Path(__file__).resolve().parents[2]


def test_a_recipe_wins_over_its_base_and_set_over_both(write):
    write("train: {lr: 1, seed: 2, adam_betas: '(0.9,0.98)'}\ngenerate: {gen_subset: x, beam: 5}\n", "base.yaml")
    path = write("base: base.yaml\ntrain: {seed: 3}\ntitle: some\n")
    recipe = load_recipe(path, overrides=["train.lr=2e-3", "generate=null", "data=other"])
    assert {key: recipe.tree["train"][key] for key in ("lr", "seed", "adam_betas")} == {
        "lr": 0.002,
        "seed": 3,
        "adam_betas": "(0.9,0.98)",
    }
    assert (list(recipe.stages()), recipe.tree["title"], recipe.tree["data"]) == (["train"], "some", "other")


def test_a_run_is_named_after_the_folder_and_the_file(write, tmp_path):
    path = write("train: {x: '${RUN}/x'}")
    assert load_recipe(path).name == f"{tmp_path.name}_small"
    assert load_recipe(path, Path("out"), name="mine").tree["train"]["x"] == "out/mine/x"


def test_stages_find_each_others_files(small, tmp_path):
    recipe = small()
    runs = tmp_path / "runs"
    assert list(recipe.stages()) == ["prepare", "train", "average", "generate"]
    assert recipe.tree["train"]["data"] == f"{runs}/data/small/en-de"
    assert recipe.tree["generate"]["path"] == str(recipe.makes("average"))
    assert recipe.makes("generate") == runs / "small" / "generate-tst-COMMON_st.txt"
    assert recipe.manifest("train_st") == runs / "data/small/en-de/train_st.tsv"


def test_without_an_average_the_best_checkpoint_is_decoded(small):
    assert small("average=null").tree["generate"]["path"].endswith("small/checkpoints/checkpoint_best.pt")


@pytest.mark.parametrize("left_out", ["prepare", "corpus"])
def test_stages_after_one_that_is_left_out_find_its_files(left_out):
    path = ROOT / "configs" / "demo" / "st.yaml"
    whole, part = load_recipe(path, data="x"), load_recipe(path, data="x", overrides=[f"{left_out}=null"])
    assert list(part.stages()) == [name for name in whole.stages() if name != left_out]
    assert part.tree == {key: value for key, value in whole.tree.items() if key != left_out}


def test_a_recipe_leaves_out_a_stage_of_its_base_too(write):
    path = write(f"base: {ROOT}/configs/tiny.yaml\nprepare: null\n", "prepared.yaml")
    recipe = load_recipe(path, overrides=["prepare=null", "train.data=mine"])
    assert (list(recipe.stages()), recipe.tree["train"]["train_subset"]) == (
        ["train", "average", "generate"],
        "train_st",
    )


def test_a_section_becomes_flags():
    section = {"a_b": 1e-5, "folder": "x y", "on": True, "off": False, "none": None, "many": [1, "two"]}
    words = arguments(Stage(("p",), "", positional="folder"), section)
    assert words == ["x y", "--a-b", "1e-05", "--on", "--many", "1", "two"]


def test_a_command_can_be_pasted_and_has_no_path_of_the_corpora(small):
    recipe = small("train.adam_betas='(0.9, 0.98)'", data="/my corpora")
    assert recipe.command("prepare")[recipe.command("prepare").index("--data") + 1] == "/my corpora"
    assert '--data "$DATA"' in recipe.show("prepare")
    assert shlex.split(recipe.show("train")) == recipe.command("train")


def test_the_command_runs_the_same_again(write, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path = ROOT / "configs" / "demo" / "st.yaml"
    assert load_recipe(path).again == "mla-recipe configs/demo/st.yaml"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    again = load_recipe(path, overrides=["train.lr=0.1", "title=a b"], name="mine").again
    assert again.startswith("OMP_NUM_THREADS=1 mla-recipe configs/demo/st.yaml --set ")
    assert again.endswith("--set train.lr=0.1 'title=a b' --name mine")


@pytest.mark.parametrize(
    ("text", "overrides", "words"),
    [
        pytest.param("trian: {x: 1}", (), "unknown section 'trian': did you mean train", id="section"),
        pytest.param("train: 3", (), "'train' is 3: write it as flags", id="no-mapping"),
        pytest.param("title: x", (), "no section 'train': add one", id="no-training"),
        pytest.param("- a", (), "is not a recipe: it needs sections", id="list"),
        pytest.param("train: {x: [}", (), r"small\.yaml is not valid YAML", id="yaml"),
        pytest.param("train: {x: '${DATA}'}", (), "DATA is not set: export DATA=", id="data"),
        pytest.param("train: {x: '${train.y}'}", (), r"train\.x: train\.y is not given: add it", id="variable"),
        pytest.param("base: no.yaml", (), r"/no\.yaml is missing: take one of small\.yaml$", id="base"),
        pytest.param("train: {x: 1}", ("data=''",), "data is '': give the name of one folder", id="no-data-name"),
        pytest.param("train: {x: 1}", ("data=a/b",), "data is 'a/b': give the name of one folder", id="data-path"),
        pytest.param("train: {x: 1}", ("foo=1",), r"unknown section 'foo': take one of (\S+, ){4}\S+ or", id="five"),
        pytest.param("train: {x: 1}", ("train.x",), r"--set train\.x: write section\.key=value", id="set"),
        pytest.param("train: {x: 1}", ("train.x=[",), r"--set train\.x=\[: not valid YAML", id="set-yaml"),
        pytest.param(
            "train: {x: 1}", ("train.x=",), r"train\.x=: the value is missing: give one, or null", id="no-value"
        ),
        pytest.param("train: {x: 1}", ("train.x=''",), r"--set: train\.x is empty: give a value, or null", id="empty"),
        pytest.param("train: {x: ' '}", (), r"small\.yaml: train\.x is empty", id="blank"),
        pytest.param("train: {x: [a, '']}", (), r"train\.x is empty", id="blank-in-list"),
        pytest.param("train: {x: 010}", (), "YAML reads 010 as another number: write it in quotes", id="octal"),
        pytest.param("train: {x: [1:30]}", (), "YAML reads 1:30 as another number", id="minutes"),
        pytest.param(
            "train: {x: 1}", ("train.x=-1:30.5",), r"x=-1:30\.5: ambiguous: YAML reads -1:30\.5", id="set-minutes"
        ),
        pytest.param(
            "train: {x: 1}", ("train.x=1\n2",), r"--set 'train\.x=1\\n2': write section\.key=value", id="set-lines"
        ),
        pytest.param('train: {x: "1\\n2"}', (), r"train\.x is '1\\n2': remove the line breaks", id="lines"),
        pytest.param(
            "train: {a_b: 1, a-b: 2}", (), "small.yaml: train: 'a_b' is given twice, also as 'a-b'", id="double"
        ),
        pytest.param("train: {x: 1}", ("train.a-b=1", "train.a_b=2"), "'a_b' is given twice", id="set-double"),
        pytest.param("train: {x: {y: 1}}", (), r"train\.x is \{'y': 1\}: give one value, or a list", id="mapping"),
        pytest.param("train: [a]", (), r"'train' is \['a'\]: write it as flags", id="list-section"),
        pytest.param("train: {x: 1}\ntitle: [a]", (), r"'title' is \['a'\]: give one text", id="list-title"),
        pytest.param("base: 3", (), "base is 3: give the path of one recipe", id="base-number"),
        pytest.param("base: [a]", (), r"base is \['a'\]: give the path", id="base-list"),
        pytest.param("train: {x: &x {y: *x}}", (), r"not valid YAML: line 1 has an alias, \*x", id="alias"),
        pytest.param("[" * 3000, (), "small.yaml is not valid YAML: line 1 is nested more than", id="deep"),
        pytest.param(
            "train: {x: 1}", ("train.x=" + "[" * 3000,), "not valid YAML: line 1 is nested more", id="set-deep"
        ),
        pytest.param("train: {x: 1}", ('data="a\\tb"',), r"data cannot name a file \('a\\tb'\)", id="data-tab"),
        pytest.param(
            "prepare: {pairs: [a, b]}\ntrain: {data: 'x/${prepare.pairs}'}",
            (),
            r"train\.data needs one prepare\.pairs, which is a list: set train\.data too",
            id="list-in-text",
        ),
    ],
)
def test_a_mistake_is_reported(write, text, overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        load_recipe(write(text), overrides=overrides)
    assert "\n" not in str(caught.value)


def test_hyphens_in_names_are_underscores(write):
    write("train: {max-update: 1, lr: 2}\nprepare-speech: {min-frames: 3}\n", "base.yaml")
    recipe = load_recipe(write("base: base.yaml\ntrain: {max_update: 2}\n"), overrides=["train.max-update=30"])
    assert recipe.tree["train"] == load_recipe(write("train: {lr: 2, max_update: 30}")).tree["train"]
    assert recipe.tree["prepare_speech"]["min_frames"] == 3


def test_a_name_with_a_line_break_is_refused(write):
    with pytest.raises(ValueError, match=r"^--name cannot name a file \('a\\nb'\)"):
        load_recipe(write("train: {x: 1}"), name="a\nb")


def test_a_number_in_quotes_is_kept_and_a_list_may_be_a_whole_value(write):
    path = write("prepare: {pairs: [a, b], output: '010'}\ntrain: {data: '${prepare.pairs}', 5: '1:30'}")
    tree = load_recipe(path).tree
    assert (tree["prepare"]["output"], tree["train"]["data"], tree["train"]["5"]) == ("010", ["a", "b"], "1:30")


def test_another_encoding_is_reported_with_its_place(write):
    path = write("train: {x: 1}")
    path.write_bytes(b"train:\n  x: f\xfcnf\n")
    with pytest.raises(ValueError, match=r"small\.yaml is not UTF-8 \(line 2, byte 13: 0xfc"):
        load_recipe(path)


@pytest.mark.parametrize("name", ["mustc/st.yaml", "configs/mustc/st.yaml"])
def test_a_recipe_that_does_not_exist_is_looked_up_in_the_package(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(Path(name), data="corpora")
    assert (recipe.name, recipe.tree["title"]) == ("mustc_st", "MuST-C en-de")
    assert recipe.again.endswith("mla-recipe configs/mustc/st.yaml")
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("train: {x: 1}")
    assert load_recipe(Path(name)).tree["train"]["x"] == 1, "a file that exists wins"


def test_an_unknown_recipe_names_the_nearest_packaged_one():
    with pytest.raises(ValueError, match=r"^recipe mustc/sst\.yaml is missing: did you mean mustc/st\.yaml\?$"):
        load_recipe(Path("mustc/sst.yaml"))
    with pytest.raises(ValueError, match=r"is missing: take one of (\S+/\S+\.yaml, ){4}\S+ or \d+ others$"):
        load_recipe(Path("@"))


def test_a_base_is_no_recipe():
    with pytest.raises(
        ValueError, match=r"train\.data: prepare\.pairs is not given: .*if this is a base, run a recipe"
    ):
        load_recipe(ROOT / "configs" / "tiny.yaml", data="x")


@pytest.mark.parametrize("name", ["../../x", "a/b", ".."])
def test_a_run_has_the_name_of_one_folder(write, name):
    with pytest.raises(ValueError, match=r"--name is '.*': give the name of one folder, without slashes"):
        load_recipe(write("train: {x: 1}"), name=name)


def test_a_base_has_no_base(write):
    write("train: {x: 1}\nbase: third.yaml", "second.yaml")
    with pytest.raises(ValueError, match=r"its base second\.yaml has a base of its own \(third\.yaml\): keep to one"):
        load_recipe(write("base: second.yaml"))
