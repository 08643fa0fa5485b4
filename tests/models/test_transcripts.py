"""Transcripts by CTC in fairseq-generate."""

from collections.abc import Callable
from pathlib import Path

import torch

from mla_fairseq.models.ctc import word_errors
from mla_fairseq.tasks.transcripts import recorded
from tests.models.conftest import CTC_OF_BOTH, Build
from tests.programs import Done

Generate = Callable[..., Done]


def test_the_output_has_transcripts_and_their_error_rate(
    both: Path, generate: Generate, corpus: Path, tmp_path: Path
) -> None:
    done = generate(both)
    assert done.code == 0, done.err
    found = dict(line.removeprefix("C-").split("\t") for line in done.lines("C-"))
    header, *rows = (line.split("\t") for line in (corpus / "dev.tsv").read_text(encoding="utf-8").splitlines())
    references = [row[header.index("src_text")] for row in rows]
    assert sorted(map(int, found)) == list(range(len(references)))
    errors, words = map(sum, zip(*(word_errors(found[str(i)], one) for i, one in enumerate(references)), strict=True))
    expected = f"Transcribe dev with CTC: WER = {100 * errors / words:.2f} ({words} words)"
    assert done.lines("Transcribe") == [expected]
    quiet = generate(both, "--quiet", "--results-path", tmp_path)
    assert (quiet.code, quiet.lines("C-")) == (0, [])
    written = (tmp_path / "generate-dev.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in written if line[:2] in ("C-", "Tr")] == [expected]


def test_the_encoder_runs_once_and_is_left_as_it_was(build: Build) -> None:
    model = build(flags=f"--task speech_to_text_mla {CTC_OF_BOTH}").model
    with recorded([model]) as outputs:
        batch = {"src_tokens": torch.randn(1, 20, 8), "src_lengths": torch.tensor([20])}
        model.encoder.forward_torchscript(batch)
    assert len(outputs) == 1 and "forward" not in vars(model.encoder)
