"""Tags of target languages: no criterion learns them, and neither lengths nor latencies count them."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fairseq import options, tasks

from mla_fairseq.criterions.latency import differentiable_average_lagging
from mla_fairseq.errors import UserError
from tests.models.conftest import SIZES, TRAINING, write_corpus

LENGTH = "--criterion label_smoothed_cross_entropy_mla --attn-type cosformer --length-predictor"
LATENCY = "--criterion latency_augmented_label_smoothed_cross_entropy_mla --latency-gather-method average"
SIMUL = "--arch s2t_transformer_simul_mla --simul-type infinite_lookback"
MODELS = {
    "plain": "--criterion label_smoothed_cross_entropy",
    "length": LENGTH,
    "latency": f"{LATENCY} {SIMUL} --latency-avg-weight 1 --latency-var-weight 1",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose targets are in the language b, with its tag."""
    folder = write_corpus(tmp_path_factory.mktemp("corpus"), {"train": 4})
    dictionary = folder / "dict.txt"
    dictionary.write_text("<lang:a> 1\n<lang:b> 1\n" + dictionary.read_text(encoding="utf-8"), encoding="utf-8")
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"prepend_tgt_lang_tag": True}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def parse(folder: Path, flags: str) -> Namespace:
    words = flags.split()
    arch = [] if "--arch" in words else ["--arch", "s2t_transformer_mla"]
    command = [
        str(folder),
        "--task",
        "speech_to_text_mla",
        *arch,
        *SIZES,
        *TRAINING,
        "--dropout",
        "0",
        *words,
    ]
    return options.parse_args_and_arch(options.get_training_parser(), command)


def build(folder: Path, flags: str) -> tuple[Any, Any, dict[str, Any]]:
    """Return a model, its criterion and a batch."""
    args = parse(folder, f"{flags} --ignore-prefix-size 1 --noise-var 0" if SIMUL in flags else
                 f"{flags} --ignore-prefix-size 1")  # fmt: skip
    torch.manual_seed(0)
    task = tasks.setup_task(args)
    task.load_dataset("train")
    dataset = task.dataset("train")
    batch = dataset.collater([dataset[row] for row in range(len(dataset))])
    assert batch["target"][:, 0].unique().tolist() == [task.target_dictionary.index("<lang:b>")]
    return task.build_model(args), task.build_criterion(args), batch


@pytest.mark.parametrize("flags", MODELS.values(), ids=MODELS)
def test_no_criterion_learns_the_tag(folder: Path, flags: str) -> None:
    model, criterion, batch = build(folder, flags)
    loss, *_ = criterion(model, batch)
    other = batch | {"target": batch["target"].clone()}
    other["target"][:, 0] = 7
    torch.testing.assert_close(criterion(model, other)[0], loss)
    other["target"][:, 1] = 7
    assert not torch.isclose(criterion(model, other)[0], loss)


def test_lengths_are_those_of_the_text(folder: Path) -> None:
    model, criterion, batch = build(folder, LENGTH)
    _, extra = model.eval()(**batch["net_input"])
    true = batch["target"].ne(1).sum(1) - 1
    _, _, log = criterion(model, batch)
    expected = (extra["length_log_ratio"].exp() * extra["source_lengths"] / true - 1).abs().sum()
    torch.testing.assert_close(log["length_error"], expected.detach())
    model.train()(**batch["net_input"])
    assert model.decoder.length_rule.tokens_and_states[0] == true.sum()


def test_the_latency_is_that_of_the_text(folder: Path) -> None:
    model, criterion, batch = build(folder, MODELS["latency"])
    _, extra = model.eval()(**batch["net_input"])
    mask = batch["target"][:, 1:].ne(1)
    latency = differentiable_average_lagging(extra["delays"].mean(1)[:, 1:], extra["source_lengths"].float(), mask)
    _, _, log = criterion(model, batch)
    torch.testing.assert_close(log["latency"], latency.sum().detach())


def test_the_tag_reads_what_the_first_token_reads(folder: Path) -> None:
    flags = "--arch s2t_transformer_simul_mla --waitk-lagging 2 --fixed-pre-decision-ratio 3"
    model, *_ = build(folder, f"{MODELS['plain']} {flags}")
    view = model.eval().decoder._cross_view(5, torch.zeros(100, 1, 16), {})
    assert view.lengths.tolist() == [6, 6, 9, 12, 15]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (MODELS["plain"], "the criterion would learn to emit target-language tags: add --ignore-prefix-size 1"),
        *(
            (
                f"{LENGTH} --ignore-prefix-size {size}",
                f"--ignore-prefix-size is {size}, but the targets begin with one .*: give --ignore-prefix-size 1",
            )
            for size in (-1, 2, 999)
        ),
        ("--criterion cross_entropy", "use --criterion label_smoothed_cross_entropy with --ignore-prefix-size 1"),
    ],
)
def test_a_criterion_that_does_not_ignore_the_tag_is_refused(folder: Path, flags: str, message: str) -> None:
    args = parse(folder, flags.replace("--criterion cross_entropy", ""))
    if flags == "--criterion cross_entropy":
        args = Namespace(**{**vars(args), "criterion": "cross_entropy"})
        del args.ignore_prefix_size
    with pytest.raises(UserError, match=f"{message}$"):
        tasks.setup_task(args).build_criterion(args)
