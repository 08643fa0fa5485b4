"""Transcripts by CTC in the output of ``fairseq-generate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, TextIO

from fairseq_cli import generate

from mla_fairseq.models.ctc import SOURCE, TARGET, has_output, word_errors

Output = dict[str, Any]
"""What an encoder returns."""


@contextmanager
def recorded(models: Sequence[Any]) -> Iterator[list[Output]]:
    """Collect what the encoders of models return inside the block, so that no encoder runs twice."""
    found: list[Output] = []
    with ExitStack() as stack:
        for encoder in (model.encoder for model in models if has_output(model, SOURCE) or has_output(model, TARGET)):
            encoder.forward = _keeping(encoder.forward, found)
            stack.callback(delattr, encoder, "forward")  # the method of the class shows again
        yield found


def _keeping(forward: Any, found: list[Output]) -> Any:
    def keep(*args: Any, **kwargs: Any) -> Output:
        found.append(forward(*args, **kwargs))
        return found[-1]

    return keep


class Transcripts:
    """The transcripts that CTC gives beside translations: ``C-`` lines in the output of ``fairseq-generate``.

    Args:
        output: where that command prints its lines.
        quiet: print no lines, only the word error rate.
    """

    current: ClassVar[Transcripts | None] = None  # of the command that runs in this process

    def __init__(self, output: TextIO, quiet: bool) -> None:
        self.output, self.quiet = output, quiet
        self.errors = self.words = 0

    def add(self, ids: Sequence[int], texts: Sequence[str], references: Sequence[str]) -> None:
        """Print and count the transcripts of a batch."""
        for number, text, reference in zip(ids, texts, references, strict=True):
            if not self.quiet:
                print(f"C-{number}\t{text}", file=self.output)
            errors, words = word_errors(text, reference)
            self.errors, self.words = self.errors + errors, self.words + words

    def report(self, subset: str) -> None:
        """Print the word error rate, if there were any references."""
        if self.words:
            rate = f"WER = {100 * self.errors / self.words:.2f} ({self.words} words)"
            print(f"Transcribe {subset} with CTC: {rate}", file=self.output)


def print_transcripts() -> None:
    """Let ``fairseq-generate`` print transcripts and their word error rate, which it has no place for."""
    decode = generate._main

    def decode_and_report(cfg: Any, output_file: TextIO) -> Any:
        Transcripts.current = found = Transcripts(output_file, cfg.common_eval.quiet)
        scorer = decode(cfg, output_file)
        found.report(cfg.dataset.gen_subset)
        return scorer

    generate._main = decode_and_report
