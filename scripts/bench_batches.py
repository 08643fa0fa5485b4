"""Make batches of random utterances with the lengths of a corpus, as fairseq would."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

FRAMES_PER_SECOND, FEATURES, WORDS_PER_SECOND = 100, 80, 4.5
MEAN_SECONDS, SPREAD, SHORTEST, LONGEST = 6.0, 0.7, 0.5, 30.0
"""MuST-C en-de: 4.5 subwords per second of speech; ``SPREAD`` is the deviation of the logarithm."""
UTTERANCES = 5000
SAMPLING = (
    f"Utterances like MuST-C's are {UTTERANCES} draws of a log-normal length (mean {MEAN_SECONDS:g} s, deviation of "
    f"the logarithm {SPREAD:g}, {SHORTEST:g} to {LONGEST:g} s), with {WORDS_PER_SECOND:g} target tokens a second; the "
    "others have the length that the row names, less up to 5 %. Sorted by length, they fill batches as fairseq's do; "
    "the sorted batches are cut into equal parts, and the middle batch of each part is trained on, once a turn."
)


def draw_lengths(seconds: float) -> Tensor:
    """Return the frames of each utterance, longest first."""
    if seconds > 0:
        drawn = seconds * FRAMES_PER_SECOND * (1 - 0.05 * torch.rand(UTTERANCES))
    else:
        logarithms = math.log(MEAN_SECONDS) - SPREAD**2 / 2 + SPREAD * torch.randn(UTTERANCES)
        drawn = logarithms.exp().clamp(SHORTEST, LONGEST) * FRAMES_PER_SECOND
    return drawn.long().sort(descending=True).values


def draw_batches(lengths: Tensor, max_tokens: int, batches: int) -> list[Tensor]:
    """Return the middle batch of each of ``batches`` equal parts of all batches, as the lengths of its utterances."""
    every, start = [], 0
    while start < len(lengths):
        size = max(1, max_tokens // int(lengths[start]))
        every.append(lengths[start : start + size])
        start += size
    return [every[int((part + 0.5) * len(every) / batches)] for part in range(batches)]


def make_batch(frames: Tensor, vocabulary: int) -> dict:
    """Return a batch of random features and words, as fairseq's data set would collate it."""
    words = (frames * WORDS_PER_SECOND / FRAMES_PER_SECOND).long().clamp_min(1) + 1
    real = torch.arange(int(words.max())) < words.unsqueeze(-1)
    target = torch.randint(4, vocabulary, real.shape)
    target = target.scatter(1, words.unsqueeze(-1) - 1, 2).masked_fill(~real, 1)  # fairseq's end of sentence, padding
    shifted = torch.cat((torch.full_like(target[:, :1], 2), target[:, :-1]), dim=1).masked_fill(~real, 1)
    features = torch.randn(len(frames), int(frames.max()), FEATURES)
    features = features * (torch.arange(features.shape[1]) < frames.unsqueeze(-1)).unsqueeze(-1)
    inputs = {"src_tokens": features, "src_lengths": frames, "prev_output_tokens": shifted}
    return {"net_input": inputs, "target": target, "ntokens": int(real.sum()), "nsentences": len(frames)}


class Batches:
    """The batches of one row, in files that every contestant reads."""

    def __init__(self, folder: Path, seconds: float, batches: int, max_tokens: int, vocabulary: int) -> None:
        self.label = f"{seconds:g} s" if seconds > 0 else "like MuST-C"
        self.paths, self.words = [], 0
        for i, frames in enumerate(draw_batches(draw_lengths(seconds), max_tokens, batches)):
            batch = make_batch(frames, vocabulary)
            self.paths.append(_save(batch, folder / f"{seconds:g}-{i}.pt"))
            self.words += batch["ntokens"]
        alone = torch.tensor([round((seconds or MEAN_SECONDS) * FRAMES_PER_SECOND)])
        self.alone = _save(make_batch(alone, vocabulary), folder / f"{seconds:g}-alone.pt")


def _save(batch: dict, path: Path) -> str:
    torch.save(batch, path)
    return str(path)
