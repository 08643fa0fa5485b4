"""The recipes for published corpora, on tiny ones in their layouts."""

from pathlib import Path

import pytest
import torch

from mla_fairseq.recipes import Recipe, load_recipe
from tests.data.corpora import MAKERS
from tests.programs import ROOT, run

SMALL = {
    "prepare": "vocab_type=char workers=1 min_frames=1",
    "train": "fp16=null max_update=2 update_freq=1 max_tokens=2000 save_interval_updates=1 warmup_updates=2 "
    "num_workers=0 "
    "encoder_embed_dim=32 encoder_attention_heads=2 encoder_layers=3 decoder_layers=1 encoder_ffn_embed_dim=32 "
    "decoder_embed_dim=32 decoder_ffn_embed_dim=32 decoder_attention_heads=2 conv_channels=32",
    "average": "last=1",
    "generate": "beam=1 max_len_a=0 max_len_b=5",
}


def load(name: str, tmp_path: Path, *overrides: str) -> Recipe:
    small = [f"{section}.{word}" for section, words in SMALL.items() for word in words.split()]
    return load_recipe(
        ROOT / "configs" / f"{name}.yaml", tmp_path / "runs", [*small, *overrides], data=str(tmp_path / "data")
    )


def run_stages(recipe: Recipe) -> str:
    """Run all stages; return the log of the training."""
    logs = {}
    for stage in recipe.stages():
        done = run(*recipe.command(stage))
        assert done.code == 0, f"{stage}: {done.err[-2000:]}"
        logs[stage] = done.out + done.err
    return logs["train"]


@pytest.mark.parametrize("name", ["europarl_st/st", "europarl_st/simul", "covost2/st", "mustc/conformer"])
def test_a_recipe_prints_its_plain_commands(name: str, tmp_path: Path) -> None:
    done = run("mla-recipe", f"{name}.yaml", "--dry-run", "--out", tmp_path)
    assert done.code == 0, done.err
    commands = [line for line in done.out.splitlines() if not line.startswith("#")]
    assert [line.split()[0] for line in commands[:4]] == [
        "mla-prepare",
        "fairseq-train",
        "mla-average",
        "fairseq-generate",
    ]
    arch = "s2t_conformer_simul_mla_s" if name.endswith("simul") else "s2t_conformer_mla_s"
    for words in (f"--arch {arch}", "--ctc-weight 0.3", "--fp16", "--criterion label_smoothed_cross_entropy_mla"):
        assert words in commands[1]
    assert torch.cuda.is_available() or "there is no GPU" in done.err
    assert not any("--cpu" in command for command in commands)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_recipe_for_a_gpu_does_not_start_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even its preparation, which takes hours."""
    monkeypatch.setenv("DATA", str(tmp_path))
    done = run("mla-recipe", "europarl_st/st.yaml", "--out", tmp_path / "runs")
    assert done.code != 0 and done.err.count("\n") == 1
    assert "train.fp16 is true, but there is no GPU: use a machine with one, or --set train.fp16=null" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["europarl_st", "covost2"])
def test_a_recipe_runs_on_a_tiny_corpus(corpus: str, tmp_path: Path) -> None:
    MAKERS[corpus](tmp_path / "data")
    recipe = load(f"{corpus}/st", tmp_path)
    assert "ctc_loss" in run_stages(recipe)
    rows = recipe.manifest("train_st").read_text().splitlines()[1:]
    assert len(rows) == {"europarl_st": 12, "covost2": 4}[corpus]  # at three speeds
    assert "BLEU" in (recipe.makes("generate")).read_text()


@pytest.mark.slow
def test_a_recogniser_with_ctc_starts_a_translator(tmp_path: Path) -> None:
    """Encoder and CTC output of the simultaneous model are those of the offline recogniser.

    But for the output for the translation: the recogniser's tokens are those of transcripts.
    """
    MAKERS["europarl_st"](tmp_path / "data")
    recogniser = load("europarl_st/st", tmp_path, "prepare.task=asr", "generate=null")
    run_stages(recogniser)
    start = recogniser.makes("average")
    overrides = (
        f"train.load_pretrained_encoder_from={start}",
        "train.lr=1e-9",
        "train.seed=2",
        "generate=null",
        "simul=null",
    )
    translator = load("europarl_st/simul", tmp_path, *overrides)
    run_stages(translator)
    before, after = (
        {
            name: value
            for name, value in torch.load(path, weights_only=False)["model"].items()
            if name.startswith("encoder.")
        }
        for path in (start, translator.makes("average"))
    )
    shared = [name for name in before if name in after and ".ctc.heads.target." not in name]
    assert any(".ctc." in name for name in shared)
    assert any("conformer_layers.2" in name for name in shared)
    for name in shared:
        assert torch.allclose(before[name].float(), after[name].float(), atol=1e-5), name
