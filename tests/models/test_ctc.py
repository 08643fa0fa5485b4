"""CTC outputs: what they read, and checkpoints with and without them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mla_fairseq.checkpoints import load_checkpoint, saved_options
from mla_fairseq.models.building import load_models
from mla_fairseq.models.checks import CRITERION, load_encoder
from mla_fairseq.models.ctc import CTCOutputs, collapse
from mla_fairseq.transcripts import Alphabet
from tests.models.conftest import SIZES, TRAINING, Build, write_corpus
from tests.models.test_streaming import LENGTHS, SIMUL, speech
from tests.programs import Done, run

FLAGS = f"--criterion {CRITERION} --ctc-weight 0.3"
TASK = "--task speech_to_text_mla"


@pytest.fixture(scope="module")
def build_ctc(build: Build) -> Build:
    return lambda arch="s2t_transformer_mla", flags="": build(arch, f"{TASK} {FLAGS} {flags}")


def test_a_run_is_one_symbol_and_blanks_are_none() -> None:
    assert collapse(torch.tensor([0, 4, 4, 0, 4, 5, 5, 0, 0])) == [4, 4, 5]


@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 2])
def test_the_transcript_is_read_from_its_layer(build_ctc: Build, layer: int) -> None:
    model = build_ctc(flags=f"--ctc-text both --ctc-layer {layer}").model.double().eval()
    out = model.encoder(**speech(61, 40), return_all_hiddens=True)
    log_probs, lengths = model.encoder.ctc(out, "source")
    head = model.encoder.ctc.heads["source"]
    torch.testing.assert_close(
        log_probs, head.linear(head.norm(out["encoder_states"][layer - 1])).float().log_softmax(-1)
    )
    assert lengths.tolist() == [16, 10]
    target, _ = model.encoder.ctc(out, "target")
    head = model.encoder.ctc.heads["target"]
    torch.testing.assert_close(target, head.linear(head.norm(out["encoder_out"][0])).float().log_softmax(-1))


@pytest.mark.parametrize(("layers", "layer"), [(1, 1), (2, 1), (3, 2), (6, 4), (12, 8)])
def test_the_layer_is_two_thirds_up(build_ctc: Build, layers: int, layer: int) -> None:
    assert build_ctc(flags=f"--encoder-layers {layers}").model.encoder.ctc.layer == layer


@torch.no_grad()
def test_only_what_the_decoder_may_read_counts(build_ctc: Build) -> None:
    """The output of a sentence cut out of a talk is that of its first states."""
    model = build_ctc("s2t_transformer_simul_mla", f"{SIMUL} {LENGTHS} --ctc-text both").model.double().eval()
    batch = speech(64, 48)
    whole = model.encoder(**batch)
    out = model.encoder(**batch, readable_frames=torch.tensor([33, 12]))
    for text in ("source", "target"):
        (expected, _), (log_probs, lengths) = (model.encoder.ctc(one, text) for one in (whole, out))
        assert lengths.tolist() == [9, 3]
        torch.testing.assert_close(log_probs, expected[:9])


def test_checkpoints_with_and_without_it_load(build: Build, build_ctc: Build, train: Callable[..., Path]) -> None:
    without, with_it = build().model, build_ctc(flags="--ctc-text both").model
    own = with_it.encoder.ctc.heads["source"].linear.weight.clone()
    with_it.load_state_dict(without.state_dict())
    assert torch.equal(with_it.encoder.ctc.heads["source"].linear.weight, own)
    without.load_state_dict(with_it.state_dict())
    encoder = load_encoder(build_ctc().model.encoder, str(train()))
    assert isinstance(encoder.ctc, CTCOutputs)
    start = with_it.state_dict()
    start["encoder.ctc.heads.source.linear.weight"] = torch.zeros(9, 16)  # of another alphabet
    start["encoder.ctc.heads.source.linear.bias"] = torch.zeros(9)
    with_it.load_state_dict(start)
    assert torch.equal(with_it.encoder.ctc.heads["source"].linear.weight, own)


def test_an_encoder_brings_the_rows_of_its_characters(
    trained: tuple[Path, Path, Done], build_ctc: Build, tmp_path: Path
) -> None:
    """Alphabets are ordered by frequency, so equal sizes do not mean equal characters."""
    state = load_checkpoint(trained[1])
    symbols = saved_options(state).ctc_symbols
    model = build_ctc(flags="--ctc-text both").model
    own = {name: value.clone() for name, value in model.encoder.ctc.state_dict().items()}
    mine = symbols[::-1].replace(symbols[0], "\u00e9")  # one that the checkpoint lacks, in the place of one it has
    model.encoder.ctc.alphabet = Alphabet(mine)
    load_encoder(model.encoder, str(trained[1]))
    before = {
        name.removeprefix("encoder.ctc."): value
        for name, value in state["model"].items()
        if name.startswith("encoder.ctc.")
    }
    after = model.encoder.ctc.state_dict()
    for part in ("heads.source.linear.weight", "heads.source.linear.bias"):
        assert torch.equal(after[part][:4], before[part][:4])
        for place, symbol in enumerate(mine, start=4):
            there = 4 + symbols.find(symbol)
            assert torch.equal(after[part][place], before[part][there] if there > 3 else own[part][place])
    assert torch.equal(after["heads.source.norm.weight"], before["heads.source.norm.weight"])
    torch.save({"model": state["model"]}, tmp_path / "unknown.pt")  # of no known characters
    own = {name: value.clone() for name, value in after.items()}
    load_encoder(model.encoder, str(tmp_path / "unknown.pt"))
    assert all(torch.equal(value, own[name]) for name, value in model.encoder.ctc.state_dict().items())


def test_an_output_for_a_translation_starts_from_scratch(both: Path, build_ctc: Build) -> None:
    """An encoder's checkpoint may be of another vocabulary of the same size."""
    model = build_ctc(flags="--ctc-text both").model
    own = model.encoder.ctc.heads["target"].linear.weight.clone()
    load_encoder(model.encoder, str(both))
    assert torch.equal(model.encoder.ctc.heads["target"].linear.weight, own)


def test_fine_tuning_keeps_the_characters(trained: tuple[Path, Path, Done], tmp_path: Path) -> None:
    folder, path, _ = trained
    symbols = saved_options(load_checkpoint(path)).ctc_symbols
    vocabulary = folder / "ctc_vocab.txt"
    lines = vocabulary.read_text(encoding="utf-8").splitlines()
    try:
        vocabulary.write_text("".join(f"{line}\n" for line in [*lines[::-1], "\u00e9 1"]), encoding="utf-8")
        done = fit(folder, 1, "--finetune-from-model", path, "--lr", 1e-9, save=tmp_path)
        assert done.code == 0, done.err
        assert f"CTC has the characters of {path}: '\u00e9' are unknown to it" in done.err + done.out
    finally:
        vocabulary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    state, before = load_checkpoint(tmp_path / "checkpoint_last.pt"), load_checkpoint(path)
    assert saved_options(state).ctc_symbols == symbols
    name = "encoder.ctc.heads.source.linear.weight"
    torch.testing.assert_close(state["model"][name], before["model"][name], atol=1e-6, rtol=0)


def test_fairseq_s_own_criterion_keeps_its_layer(build: Build) -> None:
    encoder = build(flags="--criterion label_smoothed_cross_entropy_with_ctc --ctc-weight 0.3").model.encoder
    assert encoder.ctc is None and encoder.ctc_proj is not None
    encoder = build(flags=f"{TASK} {FLAGS}").model.encoder
    assert encoder.ctc is not None and encoder.ctc_proj is None


def test_the_task_of_fairseq_has_no_transcripts(build: Build) -> None:
    with pytest.raises(ValueError, match="--ctc-weight needs the transcripts of --task speech_to_text_mla"):
        build(flags=FLAGS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Done]:
    """A data folder, a checkpoint of a training with CTC, and that training."""
    folder = write_corpus(tmp_path_factory.mktemp("data"), {"train": 8, "valid": 4, "dev": 3})
    return folder, folder / "model" / "checkpoint_last.pt", fit(folder)


def fit(folder: Path, updates: int = 2, *more: object, save: Path | None = None) -> Done:
    """Train with validation."""
    words = [word for word in TRAINING if word != "--disable-validation"]
    words[words.index("label_smoothed_cross_entropy")] = CRITERION
    flags = ["--ctc-weight", 0.3, "--max-update", updates, "--log-format", "json"]
    flags += ["--save-dir", save or folder / "model", *more]
    return run("fairseq-train", [folder, *TASK.split(), "--arch", "s2t_transformer_mla", *SIZES, *words], flags)


def test_a_training_logs_word_errors_in_validation(trained: tuple[Path, Path, Done]) -> None:
    _, _, done = trained
    assert done.code == 0, done.err
    logged = [json.loads(line) for line in re.findall(r"\{\"epoch.*\}$", done.err + done.out, re.MULTILINE)]
    (valid,) = (log for log in logged if "valid_loss" in log)
    assert float(valid["valid_ctc_loss"]) > 0 and float(valid["valid_wer"]) > 0 and "valid_loss_gap" in valid
    assert any("train_ctc_loss" in log and "train_wer" not in log for log in logged)


def test_a_checkpoint_has_the_characters_of_its_transcripts(trained: tuple[Path, Path, Done]) -> None:
    """So a transcript can be printed, and a training resumed, but not with other characters."""
    folder, path, _ = trained
    symbols = saved_options(load_checkpoint(path)).ctc_symbols
    lines = (folder / "ctc_vocab.txt").read_text(encoding="utf-8").splitlines()
    assert "".join(line[0] for line in lines) == symbols
    assert fit(folder, 3).code == 0
    try:
        (folder / "ctc_vocab.txt").write_text("".join(f"{line}\n" for line in lines[::-1]), encoding="utf-8")
        done = fit(folder, 4)
        assert done.code != 0 and "was trained with other characters of transcripts than those of" in done.err
        (folder / "ctc_vocab.txt").unlink()
        models, *_ = load_models([str(path)], {"data": str(folder)})
        assert models[0].encoder.ctc.alphabet.symbols == symbols
    finally:
        (folder / "ctc_vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
