"""Prepare several language pairs as one data folder, for one model that translates into all their languages.

The layout is that of fairseq's examples: ``SPLIT_LANGUAGE_st.tsv`` for each split and target language, one vocabulary
and one configuration, and the features of each pair in a folder of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mla_fairseq.data.corpus import Segment
from mla_fairseq.data.layouts import open_corpus
from mla_fairseq.data.prepare import Folder, Options, Preparation
from mla_fairseq.data.vocabulary import TAG

log = logging.getLogger(__name__)
Splits = dict[str, list[Segment]]


class JointPreparation(Folder):
    """The preparation of several language pairs.

    With more than one target language, each target begins with the tag of its language.

    Raises:
        ValueError: fewer than two pairs, or two of one name.
    """

    def __init__(self, pairs: Sequence[Path], output: Path, options: Options) -> None:
        super().__init__(output, options)
        if len(pairs) < 2 or len({pair.name for pair in pairs}) < len(pairs):
            names = " ".join(pair.name for pair in pairs)
            raise ValueError(f"--joint needs two or more different --pairs ({names}): add one, or remove --joint")
        corpora = [open_corpus(pair, options.layout, options.target_column) for pair in pairs]
        self.parts = [
            Preparation(corpus, output / pair.name, options) for corpus, pair in zip(corpora, pairs, strict=True)
        ]
        for part in self.parts:
            part.statistics = self.statistics  # deleted if the audio of a pair has changed
        targets = [corpus.languages[1] for corpus in corpora]
        self.names = targets if len(set(targets)) == len(targets) else [pair.name for pair in pairs]

    def run(self) -> Path:
        """Make all files; return the configuration's path.

        Raises:
            ValueError: a corpus that does not follow the layout, or no segment is left to train on.
        """
        read = [part.read() for part in self.parts]
        self.leave_out(read)
        lines = [text for part, (_, kept) in zip(self.parts, read, strict=True) for text in part.texts(kept["train"])]
        model = self.train_vocabulary(lines, self.tags)
        characters = self.write_ctc_vocabulary([one.source for _, kept in read for one in kept["train"]])
        manifests = []
        for name, part, (segments, kept) in zip(self.names, self.parts, read, strict=True):
            for split, rows in part.extract(segments, kept).items():
                # an archive's path is relative to the folder of the manifest
                rows = [replace(row, audio=f"{part.output.name}/{row.audio}") for row in rows]
                path = self.write_manifest(f"{split}_{name}", rows)
                manifests += [path] if split == "train" else []
        return self.write_config(model, manifests, bool(self.tags), characters)

    def leave_out(self, read: Sequence[tuple[Splits, Splits]]) -> None:
        """Leave out the training segments of recordings that a pair is validated or tested on.

        Pairs that share recordings may divide them into splits in different ways. A recording is known by the name and
        the size of its file.
        """
        held = {
            recording(one) for _, kept in read for split, members in kept.items() for one in members
            if not split.startswith("train")
        }  # fmt: skip
        for part, (_, kept) in zip(self.parts, read, strict=True):
            for split in (split for split in kept if split.startswith("train")):
                before, kept[split] = len(kept[split]), [one for one in kept[split] if recording(one) not in held]
                if (count := before - len(kept[split])) > 0:
                    name = f"{split} of {part.corpus.root.name}"
                    log.info("%s: %d of %d segments left out, their recordings are in test sets", name, count, before)

    @property
    def tags(self) -> list[str]:
        """The tags of the target languages; none if there is only one."""
        languages = sorted({part.target_language for part in self.parts})
        return [TAG.format(language) for language in languages] if len(languages) > 1 else []

    @property
    def flags(self) -> str:
        """The flags of ``fairseq-train`` that such a folder needs."""
        sets = ",".join(f"train_{name}_{self.options.task}" for name in self.names)
        return f"--train-subset {sets}" + (" --ignore-prefix-size 1" if self.tags else "")


def recording(segment: Segment) -> tuple[str, int]:
    """Return what a segment's recording is known by: the name and the size of its file."""
    return segment.wav.name, segment.wav.stat().st_size
