"""The programs know every flag of the recipes; unknown flags are reported before anything runs."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from mla_fairseq.cli.recipe import build_parser
from mla_fairseq.models.checks import CRITERION
from mla_fairseq.recipes import check, load_recipe
from mla_fairseq.recipes.check import check_files

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*/*.yaml") if path.parent.name != "simulstream")


@pytest.mark.parametrize("path", CONFIGS, ids=[f"{path.parent.name}-{path.stem}" for path in CONFIGS])
def test_the_programs_know_every_flag_of_a_recipe(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = load_recipe(path, data="corpora")
    check(recipe)
    for name in recipe.stages():
        assert not [word for word in shlex.split(recipe.show(name)) if word.startswith("/")], "no absolute path"


def published() -> list[list[str]]:
    """Return the arguments of the recipe commands of the published results."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in ROOT.glob("examples/*/results/*/*.json")]
    lines = sorted({line for record in records for line in record["command"].splitlines()})
    commands = [re.fullmatch(r".*(?:mla-recipe|python scripts/run_recipe\.py) (.*)", line) for line in lines]
    return [shlex.split(command[1]) for command in commands if command]


def test_the_programs_know_every_flag_of_the_published_results(monkeypatch):
    monkeypatch.chdir(ROOT)
    parser = build_parser()
    assert len(published()) > 20
    for words in published():
        args = parser.parse_args(words)
        check(load_recipe(args.recipe, args.out, args.set, args.name, data="corpora"))


def test_there_are_few_configs():
    assert len(CONFIGS) <= 22


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.max_updat=3", r"train\.max_updat is not a flag of fairseq-train: did you mean max_update\?"),
        ("train.max_updat=null", r"train\.max_updat is not a flag of fairseq-train: did you mean max_update\?"),
        ("train.lr=false", r"train\.lr is false, but takes a value: give one, or null for the default"),
        ("generate.beam=[3,4]", "generate: '4' belongs to no flag: give one value"),
        ("train.max_update=x", "train: argument --max-update: invalid int value: 'x'"),
        ("train.arch=null", "train.arch is missing: name an architecture, such as"),
        ("train.arch=s2t_transformer_mla_tiny_", "invalid choice: 's2t_transformer_mla_tiny_': did you mean .*_tiny?"),
        ("train.attn_type=cosforme", "unknown attention 'cosforme': choose one of cosformer"),
        ("generate.beem=3", r"generate\.beem is not a flag of fairseq-generate: did you mean beam\?"),
        ("prepare.task=sst", "prepare: argument --task: invalid choice: 'sst' .choose from '?asr'?, '?st'?."),
        (
            "average.last=20",
            r"average\.last is 20, but 10 checkpoints are kept: raise train\.keep_interval_updates",
        ),
        ("corpus={output: x, voice: 2, voices: 3}", "corpus: argument --voices: not allowed with argument --voice"),
        ("train.cosformer_length=fixed", r"train\.cosformer_length is not a flag .*: it is called target_length now$"),
        ("train.cosformer_train_length=9", r": it is called train_target_length now$"),
        ("train.cosformer_length_ratio=9", r": it is called target_length_ratio now$"),
        ("train.cosformer_length_fixed=9", r": it is called target_length_fixed now$"),
        ("train.cosformer_source_length=9", r": it is called source_length now$"),
        ("train.decay_shortest=9", r": it is called decay_min_half_life now$"),
        ("train.decay_longest=9", r": it is called decay_max_half_life now$"),
        ("train.waitk_lagging=3", r": it belongs to another arch, such as s2t_transformer_simul_mla_tiny$"),
        ("train.user_dir=/nowhere", r"train\.user_dir is /nowhere, which does not exist: name the folder"),
        ("train.help=true", "train: a recipe shows no help: run fairseq-train --help$"),
        ("generate.beam=0", "generate: --beam is 0: give a number from 1 to"),
        ("corpus={output: x, sentences: -5}", r"corpus\.sentences is -5: give 1 or more"),
        ("train.max_update=-5", r"train\.max_update is -5: give 0 or more"),
        ("train.lr=0.1 0.2", r"train: a value is not the number or list"),
        ("train.no_save=true", r"train\.no_save is true, but other stages read what it leaves out: remove it"),
        ("generate.quiet=true", r"generate\.quiet is true, but other stages read"),
        ("prepare.vocab_size=-5", "prepare: argument --vocab-size: '-5' is not a whole number of at least 1$"),
        ("prepare.workers=0", "prepare: argument --workers: '0' is not a whole number of at least 1$"),
        ("simul={laggings: '1,a'}", "simul: argument --laggings: 'a' is not a whole number of at least 1$"),
        ("simul={}", r"simul decodes by wait-k, but train\.arch is s2t_transformer_mla_tiny, which is offline: set"),
        ("generate.tgt_lang=de", r"generate\.tgt_lang needs data with tags of languages: set prepare\.joint=true"),
        ("train.data=null", "train: the following arguments are required: data"),
        ("prepare.pairs=null", "prepare: the following arguments are required: --pairs"),
    ],
)
def test_a_wrong_flag_is_reported_with_its_fix(small, override, words):
    with pytest.raises(ValueError, match=words) as caught:
        check(small(override))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("waitk_lagging=3-1", "argument --waitk-lagging: must be K or LOWEST-HIGHEST with .*, but is 3-1$"),
        ("waitk_lagging=a", "argument --waitk-lagging: must be a number such as 3, or a range .*, but is 'a'$"),
        ("simul_type=hard_aligned", r"simul decodes by wait-k, but train\.simul_type is hard_aligned: set simul=null"),
    ],
)
def test_wait_k_is_checked(small, override, words):
    arch = "train.arch=s2t_transformer_simul_mla_tiny"
    check(small(arch, "train.waitk_lagging=1-9", "simul={}"))
    with pytest.raises(ValueError, match=words):
        check(small(arch, "simul={}", f"train.{override}"))


def test_an_exported_model_is_compared_with_a_sweep(small):
    flags = ("train.arch=s2t_transformer_simul_mla_tiny", "export={waitk_lagging: 5}")
    check(small(*flags, "simul={laggings: '1,5'}"))
    with pytest.raises(
        ValueError, match=r"^export\.waitk_lagging is 5, but simul\.laggings is 1, 9: name one of them$"
    ):
        check(small(*flags, "simul={laggings: '1,9'}"))
    with pytest.raises(ValueError, match=r"^export compares its words with those of simul, .*: set export=null too$"):
        check(load_recipe(ROOT / "configs/demo/simul.yaml", overrides=["simul=null"]))


def test_joint_decoding_is_checked(small):
    """Not after hours of training."""
    decode, ctc = "generate.ctc_decoding_weight=0.3", f"train.criterion={CRITERION}"
    check(small(decode, ctc, "train.ctc_weight=0.3", "train.ctc_text=target"))
    check(small(ctc, "train.ctc_weight=0.3", "generate.ctc_decoding_weight=0"))
    for flags in ((), (ctc, "train.ctc_weight=0.3"), (ctc, "train.ctc_text=both")):
        with pytest.raises(ValueError, match=r"^generate\.ctc_decoding_weight needs CTC on the translation: set train"):
            check(small(decode, *flags))


@pytest.mark.parametrize("override", ["train.foo=1", "train.=1", "train.arch=foo", "train.task=foo", "prepare.zzz=1"])
def test_a_list_of_suggestions_names_five_at_most(small, override):
    with pytest.raises(ValueError, match=r"take one of (\S+, ){4}\S+ or \d+ others$"):
        check(small(override))


def test_a_missing_asr_model_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ValueError, match="synthesize: argument --recogniser: pocketsphinx is not installed: install"):
        check(load_recipe(ROOT / "configs" / "demo" / "tts.yaml"))


def test_a_module_of_the_checkout_checks_its_flags(small):
    check(small("long_recordings={kinds: [pauses, no pauses]}"))
    with pytest.raises(ValueError, match=r"long_recordings\.kind is not a flag of python -m .*: did you mean kinds"):
        check(small("long_recordings={kind: pauses}"))


def test_the_demo_corpus_outside_a_checkout_is_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^examples\.demo_corpus is not in .*: run this recipe in a clone"):
        check(load_recipe(Path("demo/st.yaml")))


def test_a_mechanism_of_a_plugin_is_known(small, monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = small("train.user_dir=examples/custom_attention", "train.attn_type=quadratic_distance")
    check(recipe)
    assert recipe.tree["generate"]["user_dir"] == "examples/custom_attention"


def test_a_plugin_is_passed_to_the_sweep_and_to_synthesis(small):
    recipe = small("train.user_dir=my_attention", "simul={}", "synthesize={gen_subset: test}")
    for name in ("generate", "simul", "synthesize"):
        command = recipe.command(name)
        assert command[command.index("--user-dir") + 1] == "my_attention"


def test_a_checkpoint_to_start_from_must_exist_or_be_made(small, tmp_path):
    key = "train.load_pretrained_encoder_from"
    with pytest.raises(ValueError, match=rf"{key} is runs/asr/a\.pt, which is missing: run the recipe of asr first"):
        check_files(small(f"{key}=runs/asr/a.pt"))
    with pytest.raises(
        ValueError, match=rf"{key} is /nope\.pt, which is missing: correct it, or start without it: --set"
    ):
        check_files(small(f"{key}=/nope.pt"))
    with pytest.raises(ValueError, match=r"train\.restore_file is runs/asr/a\.pt, which is missing: run the recipe of"):
        check_files(small("train.restore_file=runs/asr/a.pt"))
    (tmp_path / "a.pt").touch()
    check_files(small(f"{key}={tmp_path}/a.pt"))
    check_files(small("convert={checkpoint: a.pt}", "train.finetune_from_model=${convert.output}"))
    trained = small(f"{key}=runs/asr/a.pt")
    trained.makes("train").parent.mkdir(parents=True)
    trained.makes("train").touch()
    check_files(trained)


def test_a_set_that_was_not_prepared_is_reported(small):
    recipe = small("generate.gen_subset=tst-HE_st")
    check_files(recipe)  # nothing is prepared yet
    for subset in ("train_st", "dev_st"):
        recipe.manifest(subset).parent.mkdir(parents=True, exist_ok=True)
        recipe.manifest(subset).touch()
    words = r"generate\.gen_subset is tst-HE_st, which was not prepared: take one of dev_st, train_st$"
    with pytest.raises(ValueError, match=words):
        check_files(recipe)


def test_several_training_sets_are_looked_for(small):
    recipe = small("train.train_subset='train_x,train_y'", "generate.gen_subset='dev_st,tst_x'")
    for subset in ("train_x", "dev_st"):
        recipe.manifest(subset).parent.mkdir(parents=True, exist_ok=True)
        recipe.manifest(subset).touch()
    check_files(recipe)  # the preparation is not complete
    recipe.manifest("train_y").touch()
    with pytest.raises(ValueError, match=r"generate\.gen_subset is tst_x, which was not prepared"):
        check_files(recipe)


def test_default_sets_are_those_of_fairseq(write, shortest, tmp_path):
    (tmp_path / "train.tsv").touch()
    path = write(shortest)
    with pytest.raises(ValueError, match=r"train\.valid_subset is valid, which was not prepared: take one of train$"):
        check_files(load_recipe(path))
    check_files(load_recipe(path, overrides=["generate=null", "train.disable_validation=true"]))
    (tmp_path / "valid.tsv").touch()
    check_files(load_recipe(path, overrides=["generate=null", "train.valid_subset='train,valid'"]))
    with pytest.raises(
        ValueError, match=r"generate\.gen_subset is test, which was not prepared: take one of train, val"
    ):
        check_files(load_recipe(path))


def test_data_that_no_stage_prepares_has_to_exist(small):
    with pytest.raises(ValueError, match=r"train\.data is .*en-de, which is missing: add a section prepare"):
        check_files(small("prepare=null"))
    small().manifest("").parent.mkdir(parents=True)
    check_files(small("prepare=null"))
