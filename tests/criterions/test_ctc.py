"""The CTC loss: what it counts, what is logged, and that each of its faults is reported."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import options, tasks

from mla_fairseq.criterions.ctc import ctc_loss, ctc_targets
from mla_fairseq.criterions.optional_terms import OptionalTermsCriterion
from mla_fairseq.models.ctc import collapse, word_errors
from mla_fairseq.transcripts import Alphabet
from tests.models.conftest import SIZES, TRAINING, write_corpus

FLAGS = "--criterion label_smoothed_cross_entropy_mla --ctc-weight 0.5"
MODELS = {
    "source": FLAGS,
    "both": f"{FLAGS} --ctc-text both --attn-type relu",
    "simul": f"{FLAGS} --arch s2t_transformer_simul_mla",
    "monotonic": f"{FLAGS} --arch s2t_transformer_simul_mla --simul-type infinite_lookback --latency-avg-weight 1",
    "length": f"{FLAGS} --attn-type cosformer --length-predictor",
}


def test_the_loss_is_the_sum_over_all_alignments() -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(4, 2, 3, dtype=torch.double).log_softmax(-1)
    targets, lengths = [torch.tensor([1, 2]), torch.tensor([2, 2])], torch.tensor([4, 3])
    expected = 0.0
    for row, (target, length) in enumerate(zip(targets, lengths.tolist(), strict=True)):
        paths = [
            path
            for path in itertools.product(range(3), repeat=length)
            if collapse(torch.tensor(path)) == target.tolist()
        ]
        expected -= math.log(
            sum(math.exp(sum(float(log_probs[i, row, symbol]) for i, symbol in enumerate(path))) for path in paths)
        )
    assert float(ctc_loss(log_probs, lengths, targets)) == pytest.approx(expected)


def test_rows_without_a_transcript_do_not_count() -> None:
    """Neither do those that have no alignment; every row keeps its gradient, which several processes need."""
    torch.manual_seed(0)
    logits = torch.randn(4, 3, 5, requires_grad=True)
    lengths, none = torch.tensor([4, 4, 2]), torch.tensor([], dtype=torch.long)
    one = torch.tensor([2, 3])
    loss = ctc_loss(logits.log_softmax(-1), lengths, [one, none, torch.tensor([2, 2, 2])])
    torch.testing.assert_close(loss, ctc_loss(logits[:, :1].log_softmax(-1), lengths[:1], [one]))
    empty = ctc_loss(logits.log_softmax(-1), lengths, [none] * 3)
    empty.backward()
    assert float(empty.detach()) == 0 and float(logits.grad.abs().sum()) == 0


def test_targets_are_characters_or_tokens_without_tags_and_ends() -> None:
    sample = {"transcripts": ["A b", ""], "target": torch.tensor([[9, 5, 6, 2], [9, 7, 2, 1]])}
    found = ctc_targets("source", sample, Alphabet("ab\u2581"), 1, 1)
    assert [row.tolist() for row in found] == [[4, 6, 5], []]
    assert [row.tolist() for row in ctc_targets("target", sample, Alphabet(""), 1, 1)] == [[5, 6], [7]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 5, "valid": 3})


def build(folder: Path, flags: str) -> tuple[Any, OptionalTermsCriterion, dict[str, Any], Any]:
    """Return a model, its criterion, a batch and the task."""
    arch = [] if "--arch" in flags else ["--arch", "s2t_transformer_mla"]
    words = [str(folder), "--task", "speech_to_text_mla", *arch, *SIZES, *TRAINING, "--dropout", "0", *flags.split()]
    args = options.parse_args_and_arch(options.get_training_parser(), words)
    torch.manual_seed(0)
    task = tasks.setup_task(args)
    model, criterion = task.build_model(args), task.build_criterion(args)
    task.load_dataset("train")
    dataset = task.dataset("train")
    return model, criterion, dataset.collater([dataset[row] for row in range(len(dataset))]), task


@pytest.mark.parametrize("flags", MODELS.values(), ids=MODELS)
def test_the_criterion_adds_the_losses(folder: Path, flags: str) -> None:
    model, criterion, batch, _ = build(folder, flags)
    model.eval(), criterion.eval()
    ctc, encoder_out = (
        model.encoder.ctc,
        model.encoder(**{k: batch["net_input"][k] for k in ("src_tokens", "src_lengths")}),
    )
    loss, _, log = criterion(model, batch)
    total = sum(ctc_loss(*ctc(encoder_out, text), ctc_targets(text, batch, ctc.alphabet, 0, 1)) for text in ctc.heads)
    assert log["ctc_loss"] > 0 and ("both" not in flags or log["ctc_target_loss"] > 0)
    without = criterion.terms(model, model(**batch["net_input"])[1], batch)
    assert [name for _, logged in without for name in logged if name.startswith("ctc")] == [
        name
        for text in ctc.heads
        for name in (("ctc_loss", "ctc_symbols") if text == "source" else ("ctc_target_loss", "ctc_target_symbols"))
    ]
    torch.testing.assert_close(
        sum(added for (added, logged) in without if any(n.startswith("ctc") for n in logged)), 0.5 * total
    )
    assert log["ctc_symbols"] == sum(len(text) for text in batch["transcripts"])
    criterion.train()
    loss, *_ = criterion(model.train(), batch)
    loss.backward()
    assert all(parameter.grad is not None for parameter in ctc.parameters())


def test_padding_changes_no_loss(folder: Path) -> None:
    model, criterion, batch, task = build(folder, MODELS["both"])
    model.double().eval(), criterion.eval()
    dataset = task.dataset("train")
    alone = [dataset.collater([dataset[row]]) for row in range(len(dataset))]
    logs = [criterion(model, one)[2] for one in [batch, *alone]]
    for name in ("ctc_loss", "ctc_target_loss", "wer", "reference_words", "nll_loss"):
        whole, *parts = (float(log[name]) for log in logs)
        assert sum(parts) == pytest.approx(whole, rel=1e-6), name
    assert "loss_gap" not in logs[1]  # there is no other audio


def test_validation_logs_word_errors_and_the_gap(folder: Path) -> None:
    model, criterion, batch, _ = build(folder, FLAGS)
    model.eval(), criterion.eval()
    assert batch["transcripts"] == [" ".join(line.split()) for line in batch["transcripts"]]
    found = model.encoder.ctc.transcripts(model(**batch["net_input"])[1]["encoder_out"])
    errors = [word_errors(*pair) for pair in zip(found, batch["transcripts"], strict=True)]
    _, _, log = criterion(model, batch)
    assert (int(log["wer"]), int(log["reference_words"])) == tuple(map(sum, zip(*errors, strict=True)))
    shifted = batch["net_input"] | {k: batch["net_input"][k].roll(-1, 0) for k in ("src_tokens", "src_lengths")}
    _, wrong = criterion.compute_loss(model, model(**shifted), batch)
    torch.testing.assert_close(log["loss_gap"], (wrong - log["nll_loss"]).detach())
    criterion.train()
    assert not {"wer", "loss_gap"} & criterion(model, batch)[2].keys()


def test_the_log_has_bits_and_per_cent() -> None:
    from fairseq.logging import metrics

    log = {"loss": 1.0, "nll_loss": 1.0, "ntokens": 4, "nsentences": 2, "sample_size": 4, "ctc_loss": 10 * math.log(2)}
    log |= {"ctc_symbols": 5, "wer": 3, "reference_words": 12, "loss_gap": 4 * math.log(2), "gap_tokens": 4}
    with metrics.aggregate(new_root=True) as found:
        OptionalTermsCriterion.reduce_metrics([log, log | {"wer": 0}])
    values = found.get_smoothed_values()
    assert (values["ctc_loss"], values["wer"], values["loss_gap"]) == (2.0, 12.5, 1.0)


def test_rows_keep_their_transcripts_in_a_batch(folder: Path) -> None:
    _, _, batch, task = build(folder, FLAGS)
    rows = batch["id"].tolist()
    assert rows != sorted(rows)
    assert batch["transcripts"] == [task.dataset("train").src_texts[row] for row in rows]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (f"{FLAGS} --ctc-layer 0", "--ctc-layer must be within 1 and 2, but is 0"),
        (f"{FLAGS} --ctc-layer 3", "--ctc-layer must be within 1 and 2, but is 3"),
        (
            "--criterion label_smoothed_cross_entropy_mla --ctc-weight -1",
            "--ctc-weight must be at least 0, but is -1.0",
        ),
        (
            "--criterion label_smoothed_cross_entropy_mla --ctc-weight nan",
            "--ctc-weight must be at least 0, but is nan",
        ),
        (f"{FLAGS} --arch s2t_transformer", "--ctc-weight 0.5 needs a model of mla_fairseq"),
    ],
)
def test_flags_that_make_no_ctc_are_refused(folder: Path, flags: str, message: str) -> None:
    with pytest.raises((ValueError, SystemExit), match=message):
        build(folder, flags)


def test_a_warning_names_transcripts_longer_than_their_states(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_corpus(tmp_path, {"train": 4})
    build(folder, FLAGS)
    assert "more characters than encoder states" not in caplog.text
    path = folder / "train.tsv"
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    place, frames = header.index("src_text"), header.index("n_frames")
    rows[0][place], rows[1][place] = "ab" * int(rows[0][frames]), "a" * (int(rows[1][frames]) // 4)  # fits
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)))
    build(folder, FLAGS)
    assert "25 % of the transcripts of train have more characters than encoder states" in caplog.text


def test_data_without_transcripts_are_refused(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path, {"train": 2})
    path = folder / "train.tsv"
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    place = header.index("src_text")
    path.write_text("".join("\t".join([*row[:place], text, *row[place + 1 :]]) + "\n"
                            for row, text in ((header, "src_text"), *((row, " .") for row in rows))))  # fmt: skip
    with pytest.raises(SystemExit, match="train has no transcript in its column src_text, so CTC cannot learn them"):
        build(folder, FLAGS)
    build(folder, f"{FLAGS} --ctc-text target")
    config = folder / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if "ctc" not in line))
    with pytest.raises(SystemExit, match=r"config.yaml has no ctc_vocab_filename.*: run mla-prepare again with"):
        build(folder, FLAGS)
