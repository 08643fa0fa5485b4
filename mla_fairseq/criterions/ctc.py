"""The CTC loss of a batch, and what it learns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mla_fairseq.models.ctc import SOURCE, word_errors
from mla_fairseq.transcripts import BLANK, Alphabet


def ctc_loss(log_probs: Tensor, lengths: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """Return the sum over a batch of -log p(target), in nats.

    A row without symbols does not count: its text is not known. Neither does one that is too long for its states.

    Args:
        log_probs: (S, B, V), float32.
        lengths: (B,), numbers of states.
        targets: the symbols of each row, (L,) each.
    """
    sizes = torch.tensor([len(target) for target in targets], device=log_probs.device)
    padded = pad_sequence([F.pad(target, (0, int(not len(target)))) for target in targets], batch_first=True)
    losses = F.ctc_loss(
        log_probs, padded.to(log_probs.device), lengths, sizes, BLANK, reduction="none", zero_infinity=True
    )
    return (losses * (sizes > 0)).sum()


def ctc_targets(text: str, sample: dict[str, Any], alphabet: Alphabet, prefix: int, padding: int) -> list[Tensor]:
    """Return what CTC learns for each row of a batch: the characters of transcripts, or the tokens of translations.

    Args:
        text: ``source`` or ``target``.
        sample: the batch.
        alphabet: the characters of transcripts.
        prefix: number of tags before each translation, which are not spoken.
        padding: of translations; their last token ends the sentence.
    """
    if text == SOURCE:
        return [torch.tensor(alphabet.encode(line), dtype=torch.long) for line in sample["transcripts"]]
    return [row[row.ne(padding)][prefix:-1] for row in sample["target"]]


def count_errors(transcripts: Iterable[str], references: Iterable[str]) -> dict[str, Tensor]:
    """Return the word errors of the transcripts of a batch, and the words of their references, for the log."""
    errors, words = zip(*map(word_errors, transcripts, references), strict=True)
    return {"wer": torch.tensor(sum(errors)), "reference_words": torch.tensor(sum(words))}
