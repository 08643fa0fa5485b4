"""Joint decoding with CTC in fairseq-generate."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.conftest import CTC_OF_BOTH, Build
from tests.programs import Done

Generate = Callable[..., Done]


def joint_score(model: Any, batch: dict[str, Any], row: int, text: tuple[int, ...], weight: float) -> float:
    """Return what the search should give a sentence."""
    one = {key: value[row : row + 1] for key, value in batch.items()}
    encoder_out = model.encoder(one["src_tokens"], one["src_lengths"])
    scores, _ = model.decoder(torch.tensor([[2, *text[:-1]]]), encoder_out)
    attention = float(scores.log_softmax(-1)[0].gather(1, torch.tensor(text).unsqueeze(1)).sum())
    log_probs, lengths = model.encoder.ctc(encoder_out, "target")
    if (target := torch.tensor([text[:-1]])).numel():
        loss = torch.nn.functional.ctc_loss(log_probs, target, lengths, torch.tensor([len(text) - 1]), reduction="sum")
    else:
        loss = -log_probs[..., 0].sum()
    return (1 - weight) * attention - weight * float(loss)


@torch.no_grad()
@pytest.mark.parametrize("weight", [0.3, 0.8])
def test_the_search_adds_both_scores(build: Build, weight: float) -> None:
    """Each hypothesis has the score that attention and CTC give its whole sentence, in a padded batch."""
    built = build(flags=f"--task speech_to_text_mla {CTC_OF_BOTH}")
    model, batch = built.model.double().eval(), built.batch(0, 1, 2)
    built.task.args.ctc_decoding_weight = weight
    built.args.beam, built.args.max_len_b, built.args.nbest = 4, 6, 4
    generator = built.task.build_generator([model], built.args)
    sample = {"id": batch["id"], "net_input": {k: batch["net_input"][k] for k in ("src_tokens", "src_lengths")}}
    sample["net_input"]["src_tokens"] = sample["net_input"]["src_tokens"].double()
    found = built.task.inference_step(generator, [model], sample)
    for row, hypotheses in enumerate(found):
        for one in hypotheses:
            text = tuple(one["tokens"].tolist())
            expected = joint_score(model, sample["net_input"], row, text, weight) / len(text)
            assert float(one["score"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--ctc-decoding-weight 1", "(--ctc-decoding-weight) must be at least 0 and below 1, but is 1.0"),
        ("--ctc-decoding-weight nan", "(--ctc-decoding-weight) must be at least 0 and below 1, but is nan"),
        ("--ctc-decoding-weight 0.3 --score-reference", "not supported with --score-reference"),
        ("--ctc-decoding-weight 0.3 --sampling --nbest 5", "not supported with --sampling"),
    ],
)
def test_flags_that_fit_nothing_are_reported(both: Path, generate: Generate, flags: str, message: str) -> None:
    done = generate(both, flags.split())
    assert done.code != 0 and message in done.last_line


def test_models_without_it_are_reported(both: Path, train: Callable[..., Path], generate: Generate) -> None:
    done = generate(train(), "--ctc-decoding-weight", 0.3)
    assert done.code != 0 and "needs a model with CTC on the translation: train one with --ctc-weight" in done.last_line
    done = generate(f"{both}:{both}", "--ctc-decoding-weight", 0.3)
    assert done.code != 0 and "is not supported for ensembles (2 models): give one --path" in done.last_line


def test_the_weight_changes_what_the_command_finds(both: Path, generate: Generate) -> None:
    alone, joint = generate(both), generate(both, "--ctc-decoding-weight", 0.5)
    assert joint.code == 0, joint.err
    assert len(joint.hypotheses()) == len(alone.hypotheses()) and joint.hypotheses() != alone.hypotheses()
    assert generate(both, "--ctc-decoding-weight", 0).hypotheses() == alone.hypotheses()
