"""SentencePiece vocabularies, and the same in fairseq's dictionary format."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from mla_fairseq.files import write_bytes, write_text

# fairseq puts these four in front of every dictionary, in this order, so piece and dictionary numbers agree.
SPECIAL = {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3}


@dataclass(frozen=True)
class Vocabulary:
    """What to train: `kind` is unigram, bpe or char; `size` counts the pieces, the four special ones included.

    char takes every character of the text and needs no size.
    """

    kind: str
    size: int | None = None

    def __post_init__(self) -> None:
        if self.kind == "char":
            object.__setattr__(self, "size", None)
        elif self.size is None or self.size < 1:
            raise ValueError(f"--vocab-size is {self.size}, but {self.kind} needs a number of pieces above 0")

    def prefix(self, task: str) -> str:
        """File name without suffix, such as `spm_unigram1000_st`."""
        return f"spm_{self.kind}{self.size or ''}_{task}"

    def train(self, lines: list[str], model: Path) -> None:
        """Write `model` and, beside it, fairseq's dictionary `*.txt`. Raises ValueError if the size does not fit."""
        if not any(lines):
            raise ValueError("there is no training text, so there is no vocabulary: fill the train split")
        out = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=out,
                model_type=self.kind,
                vocab_size=self.size or 8000,  # for char any number does: the whole vocabulary is used
                use_all_vocab=self.kind == "char",
                character_coverage=1.0,  # alphabets; an unseen letter costs more than a larger table
                max_sentence_length=1 << 16,
                minloglevel=2,
                **SPECIAL,
            )
        except (RuntimeError, OSError) as error:
            raise ValueError(self._explain(str(error), len(lines))) from error
        pieces = _pieces(out.getvalue())
        write_text(model.with_suffix(".txt"), "".join(f"{piece} 1\n" for piece in pieces))
        write_bytes(model, out.getvalue())

    def _explain(self, error: str, num_lines: int) -> str:
        """SentencePiece's complaint about the size, in one line with the number that would work."""
        if limit := re.search(r"value <= (\d+)", error):
            return f"--vocab-size {self.size} is more than {num_lines} training lines can fill: use {limit[1]} or less"
        if limit := re.search(r"required_chars.*?(\d+) vs (\d+)", error, re.DOTALL):
            return f"--vocab-size {self.size} is less than the {limit[2]} characters and specials of the text: use more"
        return f"SentencePiece could not train {self.kind} with --vocab-size {self.size}: {' '.join(error.split())}"


def _pieces(model: bytes) -> list[str]:
    """All pieces but the special ones, by number."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(number) for number in range(len(SPECIAL), processor.get_piece_size())]
