"""``fairseq-train`` and ``fairseq-generate`` from end to end, every checkpoint read as data that cannot run code."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.conftest import EVERYWHERE, SIZES, TRAINING, Build
from tests.programs import Done, run

Train, Generate = Callable[..., Path], Callable[..., Done]
AS_OURS = ["--model-overrides", "{'_name': 's2t_transformer_mla'}"]
ALONE = ["--batch-size", 1]  # padding leaks into the states of fairseq's subsampler
ONE_UPDATE_WITHOUT_CHANGE = "--max-update 1 --lr 0"


@pytest.fixture(scope="module", autouse=True)
def weights_only():
    """Let torch load only tensors and plain values, whatever the code asks for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
        yield


@pytest.fixture(scope="module")
def stock(train: Train) -> Path:
    """Train a checkpoint of fairseq's own model and task."""
    return train(arch="s2t_transformer", task="speech_to_text")


def parameters(path: Path) -> dict[str, Tensor]:
    """Return the parameters in a checkpoint."""
    return torch.load(path, weights_only=True)["model"]


def encoder(path: Path) -> dict[str, Tensor]:
    """Return the parameters of the encoder in a checkpoint."""
    return {name: tensor for name, tensor in parameters(path).items() if name.startswith("encoder.")}


def shared(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    """Return the names under which both have the same numbers."""
    return {name for name in one if name in other and one[name].equal(other[name])}


def check_hypotheses(done: Done) -> None:
    """Check that every sentence of the dev set has one hypothesis, with words and a score."""
    assert done.code == 0, done.err
    assert [name for name, _, _ in done.hypotheses()] == [f"H-{i}" for i in range(6)]
    assert all(score < 0 and text for _, score, text in done.hypotheses())


def rename(state: dict) -> dict:
    """Give a checkpoint an architecture that is not known here."""
    state["cfg"]["model"]._name = state["cfg"]["model"].arch = "somebody_elses"
    return state


@pytest.mark.parametrize("flags", EVERYWHERE.values(), ids=EVERYWHERE)
def test_every_mechanism_trains_and_translates(train: Train, generate: Generate, flags: str) -> None:
    """After 6 updates some models emit the symbol for the beginning of a sentence, which is no word; after 16 none."""
    check_hypotheses(generate(train(f"{flags} --max-update 16")))


@pytest.mark.parametrize("task", ["speech_to_text", "speech_to_text_mla"])
def test_fairseqs_checkpoint_gives_the_same_translations_with_the_architecture_changed(
    stock, generate: Generate, task
) -> None:
    theirs, ours = generate(stock, ALONE, task=task), generate(stock, ALONE, AS_OURS, task=task)
    check_hypotheses(ours)
    for (name, score, text), expected in zip(ours.hypotheses(), theirs.hypotheses(), strict=True):
        assert (name, text) == (expected[0], expected[2])
        assert score == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.parametrize("mechanism", ["cosformer", "relu"])
def test_fairseqs_checkpoint_initialises_training(stock: Path, train: Train, mechanism: str) -> None:
    path = train(f"--attn-type {mechanism} --finetune-from-model {stock} {ONE_UPDATE_WITHOUT_CHANGE}")
    assert shared(parameters(stock), parameters(path)) == set(parameters(stock))


def test_a_model_does_not_need_the_file_that_its_encoder_came_from(
    stock: Path, train: Train, generate: Generate, tmp_path: Path
) -> None:
    pretrained = shutil.copy(stock, tmp_path / "asr.pt")
    path = train(f"--attn-type relu --load-pretrained-encoder-from {pretrained} {ONE_UPDATE_WITHOUT_CHANGE} --seed 2")
    assert shared(encoder(stock), parameters(path)) == set(encoder(stock))
    assert "decoder.embed_tokens.weight" not in shared(parameters(stock), parameters(path))
    pretrained.unlink()
    check_hypotheses(generate(path))


def test_fairseqs_checkpoint_does_not_need_the_file_that_its_encoder_came_from(
    stock: Path, train: Train, generate: Generate, tmp_path: Path
) -> None:
    """The checkpoints that fairseq has published name a file on a disk of their authors."""
    pretrained = shutil.copy(stock, tmp_path / "asr.pt")
    path = train(f"--load-pretrained-encoder-from {pretrained}", arch="s2t_transformer", task="speech_to_text")
    pretrained.unlink()
    check_hypotheses(generate(path, AS_OURS))


def test_training_resumes_where_it_stopped(train: Train, corpus: Path, tmp_path: Path) -> None:
    before = train("--attn-type cosformer")
    shutil.copy(before, tmp_path)
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
    done = run("fairseq-train", command, "--attn-type", "cosformer", "--max-update", 8, "--save-dir", tmp_path)
    assert done.code == 0, done.err
    after = tmp_path / "checkpoint_last.pt"
    assert torch.load(after, weights_only=True)["optimizer_history"][-1]["num_updates"] == 8
    counted, more = (parameters(path)["decoder.length_rule.tokens_and_states"] for path in (before, after))
    assert more[0].item() == pytest.approx(counted[0].item() * 8 / 6, rel=0.2)


def test_training_does_not_resume_with_another_mechanism(train: Train, corpus: Path) -> None:
    folder = train("--attn-type cosformer").parent
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
    flags = ["--attn-type", "cosformer", "--cross-attn-type", "relu", "--max-update", 8, "--save-dir", folder]
    done = run("fairseq-train", command, flags)
    assert done.code == 1
    assert re.fullmatch(
        r"error: .*checkpoint_last\.pt was trained with cosformer attention at site cross, .* relu: .*--save-dir.*",
        done.last_line,
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--target-length-ratio -1 --attn-type cosformer", "--target-length-ratio must be at least 0, but is -1"),
        ("--encoder-chunk-size -2", "--encoder-chunk-size must be at least 0"),
        ("--train-subset dev", "--train-subset does not begin with train (dev): rename the set"),
    ],
)
def test_a_bad_option_ends_training_with_one_line(corpus: Path, flags: str, message: str) -> None:
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
    done = run("fairseq-train", command, flags.split())
    assert done.code == 1
    assert done.last_line.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("{'attn_type': 'sofmax'}", "unknown attention 'sofmax'"),
        ("{'attn_type': 'cosformer'}", "this model has measured no target length in training"),
    ],
)
def test_a_bad_override_ends_decoding_with_one_line(
    train: Train, generate: Generate, overrides: str, message: str
) -> None:
    done = generate(train(EVERYWHERE["softmax"]), "--model-overrides", overrides)
    assert done.code == 1
    assert done.last_line.startswith(f"error: {message}")


@pytest.mark.parametrize("program", ["path", "finetune-from-model", "restore-file"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "no checkpoint .*new.pt: it is missing, check the path"),
        (lambda state: {"model": state["model"]}, ".*new.pt has weights without fairseq's options"),
        (rename, ".*new.pt has an unknown architecture \\(somebody_elses\\): add its --user-dir"),
    ],
    ids=["missing", "weights", "unknown"],
)
def test_a_foreign_checkpoint_is_one_line(
    train: Train, generate: Generate, corpus: Path, tmp_path: Path, program: str, change, message: str
) -> None:
    if change is not None:
        state = torch.load(train(EVERYWHERE["softmax"]), weights_only=True)
        torch.save(change(state), tmp_path / "new.pt")
    if program == "path":
        done = generate(tmp_path / "new.pt")
    else:
        command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
        flags = ["--max-update", 1, "--save-dir", tmp_path / "model", f"--{program}", tmp_path / "new.pt"]
        done = run("fairseq-train", command, flags)
    assert done.code == 1
    assert re.fullmatch(f"error: {message}.*", done.last_line)


def test_outputs_in_place_of_folders_are_one_line(train: Train, generate: Generate, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    done = generate(train(EVERYWHERE["softmax"]), "--results-path", tmp_path / "file" / "results")
    assert done.code == 2
    assert done.last_line.endswith(
        f"argument --results-path: the output {tmp_path}/file is not a folder: name a folder, or a new one"
    )
    (tmp_path / "generate-dev.txt").symlink_to("generate-dev.txt")
    done = generate(train(EVERYWHERE["softmax"]), "--results-path", tmp_path)
    assert done.code == 1 and done.last_line.endswith(".txt is a link: name a new file, or one to replace")
    done = run(
        "fairseq-train",
        tmp_path,
        "--task",
        "speech_to_text_mla",
        "--arch",
        "s2t_transformer_mla",
        "--save-dir",
        tmp_path / "file",
    )
    assert done.code == 2
    assert done.last_line.endswith(
        f"argument --save-dir: the output {tmp_path}/file is not a folder: name a folder, or a new one"
    )
    assert (tmp_path / "file").read_text() == "old"


def test_a_training_that_diverges_ends_with_one_line(corpus: Path, tmp_path: Path) -> None:
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
    done = run("fairseq-train", command, ["--lr", "1e30", "--max-update", 9, "--save-dir", tmp_path])
    assert done.code == 1
    assert "Traceback" not in done.err
    assert re.fullmatch(r"error: the training has diverged \(.*\): lower --lr .*", done.last_line)


def test_scores_that_are_not_finite_end_decoding_with_one_line(
    train: Train, generate: Generate, tmp_path: Path
) -> None:
    state = torch.load(train(EVERYWHERE["softmax"]), weights_only=True)
    state["model"]["encoder.transformer_layers.0.fc1.weight"] *= 1e30
    state["model"]["encoder.transformer_layers.0.fc2.weight"] *= 1e30
    torch.save(state, tmp_path / "huge.pt")
    done = generate(tmp_path / "huge.pt")
    assert done.code == 1 and "Traceback" not in done.err
    assert done.last_line.startswith(f"error: the scores of {tmp_path / 'huge.pt'} are not finite for sentence ")


def test_two_mechanisms_are_one_ensemble(train: Train, generate: Generate) -> None:
    paths = [train(f"--attn-type {name}") for name in ("cosformer", "relu")]
    both = generate(":".join(map(str, paths)), ["--prefix-size", 1, "--lenpen", 2, "--batch-size", 4])
    check_hypotheses(both)
    first = {name: text.split()[0] for name, _, text in both.hypotheses()}
    wanted = {line.split("\t")[0]: line.split("\t")[1].split()[0] for line in both.lines("T-")}
    assert {name.replace("H", "T"): word for name, word in first.items()} == wanted


def test_an_override_gives_decoding_another_length(train: Train, generate: Generate) -> None:
    path = train("--attn-type cosformer")
    overrides = ("{'target_length_ratio': 3.0}", "{'target_length': 'fixed', 'target_length_fixed': 2}")
    long, short = (generate(path, "--model-overrides", override) for override in overrides)
    assert [score for _, score, _ in long.hypotheses()] != [score for _, score, _ in short.hypotheses()]


def test_it_works_with_validation_averaging_and_ctc(corpus: Path, tmp_path: Path, generate: Generate) -> None:
    training = [flag for flag in TRAINING if flag != "--disable-validation"]
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *training]
    ctc = ["--criterion", "label_smoothed_cross_entropy_with_ctc", "--ctc-weight", 0.3]
    more = ["--attn-type", "cosformer", "--max-epoch", 1, "--store-ema", *ctc, "--save-dir", tmp_path]
    done = run("fairseq-train", command, more)
    assert done.code == 0, done.err
    check_hypotheses(generate(tmp_path / "checkpoint_best.pt"))


def test_a_pretrained_encoder_is_loaded_without_its_ctc_layer(train: Train, build: Build) -> None:
    ctc = "--criterion label_smoothed_cross_entropy_with_ctc --ctc-weight 0.3"
    plain, with_ctc = train("--attn-type relu"), train(f"--attn-type relu {ctc}")
    assert build(flags=f"--load-pretrained-encoder-from {with_ctc}").model.encoder.ctc_proj is None
    model = build(flags=f"--load-pretrained-encoder-from {plain} {ctc}").model
    assert shared(encoder(plain), model.state_dict()) == set(encoder(plain))


@pytest.mark.parametrize("mechanism", ["cosformer", "elu"])
def test_a_pretrained_encoder_may_have_another_mechanism(train: Train, build: Build, mechanism: str) -> None:
    path = train("--attn-type relu")
    model = build(flags=f"--attn-type {mechanism} --load-pretrained-encoder-from {path}", seed=3).model
    assert shared(encoder(path), model.state_dict()) == set(encoder(path))
