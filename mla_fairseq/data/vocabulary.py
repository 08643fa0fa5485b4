"""Train or copy SentencePiece vocabularies, and write them in fairseq's dictionary format."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from mla_fairseq.files import unusable, write_bytes, write_text

log = logging.getLogger(__name__)

TAG = "<lang:{}>"
"""fairseq's symbol for a target language; a joint vocabulary has one for each."""

# fairseq puts these four in front of every dictionary, in this order: piece and dictionary indices are equal.
SPECIAL = {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3}


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary to train.

    Attributes:
        kind: SentencePiece's model type: ``unigram``, ``bpe`` or ``char``.
        size: number of pieces, including the four special ones; ``char`` takes every character and needs no size.

    Raises:
        ValueError: a size below 1, or none where one is needed.
    """

    kind: str
    size: int | None = None

    def __post_init__(self) -> None:
        if self.kind == "char":
            object.__setattr__(self, "size", None)
        elif self.size is None or self.size < 1:
            raise ValueError(f"--vocab-size is not a number of pieces above 0 ({self.size}): {self.kind} needs one")

    def prefix(self, task: str) -> str:
        """Return the file name without suffix, such as ``spm_unigram1000_st``."""
        return f"spm_{self.kind}{self.size or ''}_{task}"

    def train(self, lines: list[str], model: Path, tags: Sequence[str] = ()) -> None:
        """Train on ``lines``; write ``model`` and, beside it, fairseq's dictionary ``*.txt``.

        Each of the ``tags`` becomes a piece.

        Raises:
            ValueError: no text, or a size that does not fit it.
        """
        if not any(lines):
            raise ValueError(
                f"no training text in {len(lines)} lines, so no vocabulary can be trained: add texts to the train split"
            )
        out = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=out,
                model_type=self.kind,
                vocab_size=self.size or 8000,  # ignored for char, which uses the whole vocabulary
                use_all_vocab=self.kind == "char",
                character_coverage=1.0,  # for alphabets: an unknown letter costs more than a larger table
                max_sentence_length=1 << 16,
                minloglevel=2,
                bos_id=SPECIAL["bos_id"],
                pad_id=SPECIAL["pad_id"],
                eos_id=SPECIAL["eos_id"],
                unk_id=SPECIAL["unk_id"],
                user_defined_symbols=list(tags),
            )
        except (RuntimeError, OSError) as error:
            raise ValueError(self._explain(str(error), len(lines))) from error
        _write(out.getvalue(), model)

    def _explain(self, error: str, num_lines: int) -> str:
        """Return SentencePiece's error as one line, with a size that works where SentencePiece names one."""
        if limit := re.search(r"value <= (\d+)", error):
            return f"--vocab-size is too large for {num_lines} training lines ({self.size}): use {limit[1]} or less"
        if limit := re.search(r"required_chars.*?(\d+) vs (\d+)", error, re.DOTALL):
            return f"--vocab-size is too small for {limit[2]} characters and special pieces ({self.size}): use more"
        reason = " ".join(error.split())
        return f"SentencePiece cannot train {self.kind} ({reason}): correct --vocab-size ({self.size}) or the texts"


@dataclass(frozen=True)
class GivenVocabulary:
    """An existing SentencePiece model: that of the model which is fine-tuned on this corpus.

    Raises:
        ValueError: not a SentencePiece model, or its special pieces have other indices than in fairseq.
    """

    content: bytes
    name: str

    @classmethod
    def read(cls, path: Path) -> GivenVocabulary:
        """Read the ``spm_*.model`` of a prepared folder.

        Raises:
            ValueError: the file is missing or cannot be used.
        """
        if fault := unusable(path):
            raise ValueError(f"--vocab {path} {fault}: give the spm_*.model of a prepared folder")
        return cls(path.read_bytes(), path.name)

    def __post_init__(self) -> None:
        try:
            model = sentencepiece.SentencePieceProcessor(model_proto=self.content)
        except RuntimeError as error:
            raise ValueError(
                f"--vocab is not a SentencePiece model ({self.name}): give the spm_*.model of a prepared folder"
            ) from error
        found = {name: getattr(model, name)() for name in SPECIAL}
        if found != SPECIAL:
            raise ValueError(f"--vocab {self.name} has special pieces at {found}: train it with {SPECIAL}, as fairseq")

    def prefix(self, task: str) -> str:
        """Return the name of the given file without suffix."""
        return Path(self.name).stem

    def train(self, lines: list[str], model: Path, tags: Sequence[str] = ()) -> None:
        """Copy the given model to ``model`` and write its dictionary; warn if it cannot spell parts of ``lines``.

        Raises:
            ValueError: one of the ``tags`` is no piece of the model.
        """
        processor = sentencepiece.SentencePieceProcessor(model_proto=self.content)
        if missing := [tag for tag in tags if processor.is_unknown(processor.piece_to_id(tag))]:
            raise ValueError(f"--vocab {self.name} has no piece {missing[0]}: give that of a folder with this language")
        _write(self.content, model)
        numbers = processor.encode(lines)
        unknown = sum(line.count(SPECIAL["unk_id"]) for line in numbers)
        if unknown:
            log.warning("%s has no piece for %d of %d pieces of the text", self.name, unknown, sum(map(len, numbers)))


def _write(content: bytes, model: Path) -> None:
    """Write the model and, beside it, fairseq's dictionary: all pieces but the special ones, by index."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    pieces = [processor.id_to_piece(number) for number in range(len(SPECIAL), processor.get_piece_size())]
    write_text(model.with_suffix(".txt"), "".join(f"{piece} 1\n" for piece in pieces))
    write_bytes(model, content)
