"""SentencePiece vocabularies, and the same in fairseq's dictionary format."""

from __future__ import annotations

import io
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from mla_fairseq.files import write_bytes, write_text

log = logging.getLogger(__name__)

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
        _write(out.getvalue(), model)

    def _explain(self, error: str, num_lines: int) -> str:
        """SentencePiece's complaint about the size, in one line with the number that would work."""
        if limit := re.search(r"value <= (\d+)", error):
            return f"--vocab-size {self.size} is more than {num_lines} training lines can fill: use {limit[1]} or less"
        if limit := re.search(r"required_chars.*?(\d+) vs (\d+)", error, re.DOTALL):
            return f"--vocab-size {self.size} is less than the {limit[2]} characters and specials of the text: use more"
        return f"SentencePiece could not train {self.kind} with --vocab-size {self.size}: {' '.join(error.split())}"


@dataclass(frozen=True)
class GivenVocabulary:
    """A SentencePiece model that is there already: that of the model which is to be fine-tuned on this corpus.

    Raises:
        ValueError: no such file, or no SentencePiece model whose special pieces stand where fairseq has them.
    """

    content: bytes
    name: str

    @classmethod
    def read(cls, path: Path) -> GivenVocabulary:
        """From the ``spm_*.model`` of a prepared folder."""
        if not path.is_file():
            raise ValueError(f"--vocab is {path}, which does not exist: give the spm_*.model of a prepared folder")
        return cls(path.read_bytes(), path.name)

    def __post_init__(self) -> None:
        try:
            model = sentencepiece.SentencePieceProcessor(model_proto=self.content)
        except RuntimeError as error:
            raise ValueError(f"--vocab {self.name} is no SentencePiece model") from error
        places = {name: getattr(model, name)() for name in SPECIAL}
        if places != SPECIAL:
            raise ValueError(f"--vocab {self.name} has its special pieces at {places}, but fairseq needs {SPECIAL}")

    def prefix(self, task: str) -> str:
        """File name without suffix: it keeps its own."""
        return Path(self.name).stem

    def train(self, lines: list[str], model: Path) -> None:
        """Write `model` and its dictionary; the training text has no say, but what the model cannot spell is told."""
        _write(self.content, model)
        numbers = sentencepiece.SentencePieceProcessor(model_proto=self.content).encode(lines)
        unknown = sum(line.count(SPECIAL["unk_id"]) for line in numbers)
        if unknown:
            log.warning("%s cannot spell %d of %d pieces of the text", self.name, unknown, sum(map(len, numbers)))


def _write(content: bytes, model: Path) -> None:
    """The model, and beside it fairseq's dictionary: all pieces but the special ones, by number."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    pieces = [processor.id_to_piece(number) for number in range(len(SPECIAL), processor.get_piece_size())]
    write_text(model.with_suffix(".txt"), "".join(f"{piece} 1\n" for piece in pieces))
    write_bytes(model, content)
