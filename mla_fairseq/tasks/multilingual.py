"""Let a task translate into several languages: fairseq's tags of the target language, and errors where one is missing.

A data configuration with ``prepend_tgt_lang_tag: true`` puts a tag such as ``<lang:de>`` before each target. Training
ignores it in the loss, decoding forces it.
"""

from __future__ import annotations

import copy
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from torch import Tensor

from mla_fairseq.data import manifest
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.target_language import forced_tokens, languages
from mla_fairseq.tasks.folder import FolderTask
from mla_fairseq.tasks.sets import set_names

ROWS = ", or decode each row into its language by --prefix-size 1"


def add_language_args(parser: ArgumentParser) -> None:
    """Add the flag of the target language."""
    parser.add_argument(
        "--tgt-lang",
        metavar="LANG",
        help="target language that a multilingual model decodes into (default: with --prefix-size 1, the language of "
        "each row)",
    )


class MultilingualTask(FolderTask):
    """A mixin for text tasks: the languages of a set, and the tag that a translation begins with.

    Attributes:
        prefix_size: number of tags before each target, 1 or 0.
        forced: the tag of ``--tgt-lang``; empty where the rows have their languages.

    Raises:
        UserError: the dictionary has no tags, or the configuration puts them elsewhere.
    """

    def __init__(self, args: Namespace, dictionary: Dictionary) -> None:
        super().__init__(args, dictionary)
        self.prefix_size = int(self.data_cfg.prepend_tgt_lang_tag)
        self.forced: list[int] = []
        if self.data_cfg.prepend_bos_and_append_tgt_lang_tag:
            raise UserError(
                f"prepend_bos_and_append_tgt_lang_tag in {args.config_yaml} is not supported: use prepend_tgt_lang_tag"
            )
        if self.prefix_size and not languages(dictionary):
            raise UserError(
                f"{self.data_cfg.vocab_filename} has no tag such as <lang:de>, but {args.config_yaml} has "
                "prepend_tgt_lang_tag: prepare the data with mla-prepare --joint"
            )

    def check_split(self, split: str) -> None:
        """Check that a set can be loaded, and that the dictionary has the tags of all its rows.

        Raises:
            UserError: it cannot.
        """
        super().check_split(split)
        path, known = Path(self.args.data) / f"{split}.tsv", languages(self.target_dictionary)
        found = {target for _, target in manifest.languages(path)} if self.prefix_size else set()
        if missing := sorted(found - set(known)):
            raise UserError(
                f"{path} has rows in the language {missing[0]!r}, but the dictionary has tags of {', '.join(known)}: "
                "correct the column tgt_lang, or prepare the data with mla-prepare --joint"
            )

    def build_bpe(self, args: Any) -> Any:
        """Build the tokenizer that the data configuration names, as fairseq does.

        Raises:
            UserError: its package is not installed.
        """
        try:
            return super().build_bpe(args)
        except ImportError as error:
            name = f"bpe_tokenizer of {Path(self.args.data) / self.args.config_yaml}"
            raise UserError(f"{name} needs a package ({error}): install it, or use sentencepiece") from error

    def build_criterion(self, args: Any) -> Any:
        """Build a criterion as fairseq does.

        Raises:
            UserError: a criterion that does not ignore the tags, or ignores words.
        """
        size = getattr(args, "ignore_prefix_size", None)
        if self.prefix_size and not size:
            fix = "use --criterion label_smoothed_cross_entropy with" if size is None else "add"
            raise UserError(f"the criterion would learn to emit target-language tags: {fix} --ignore-prefix-size 1")
        if (size or 0) != self.prefix_size:
            tags = "begin with one tag of their language" if self.prefix_size else "have no tags of their language"
            raise UserError(
                f"--ignore-prefix-size is {size}, but the targets {tags}, so their first words would not count: give "
                f"--ignore-prefix-size {self.prefix_size}"
            )
        return super().build_criterion(args)

    def with_prefix(self, args: Any) -> Any:
        """Return the options of decoding, with the size of the prefix that ``--tgt-lang`` forces.

        Raises:
            UserError: no target language for a multilingual model, or one that the model does not have.
        """
        language = getattr(self.args, "tgt_lang", None)
        if self.prefix_size and getattr(args, "score_reference", False):
            return self._with_tags_of_rows(args, language)
        if language and self.prefix_size and getattr(args, "prefix_size", 0) and not hasattr(self.args, "buffer_size"):
            raise UserError(
                f"--prefix-size {args.prefix_size} and --tgt-lang {language} both choose the target language: remove "
                "one of them"
            )
        if language is None and self.prefix_size and getattr(args, "prefix_size", None) == self.prefix_size:
            return args  # the rows have their languages
        try:
            self.forced = forced_tokens(self.target_dictionary, self.prefix_size, language)
        except ValueError as error:
            # fairseq-interactive, which has a buffer, has no rows with languages
            rows = "" if language or hasattr(self.args, "buffer_size") else ROWS
            raise UserError(f"{error}{rows}") from error
        if self.forced:
            args = copy.copy(args)
            args.prefix_size = self.prefix_size  # which fairseq asks for
        return args

    def _with_tags_of_rows(self, args: Any, language: str | None) -> Any:
        """Return the options of ``--score-reference``, where each reference begins with the tag of its row.

        Raises:
            UserError: a row has another language than ``--tgt-lang``.
        """
        for name in set_names(self.args.gen_subset) if language else ():
            path = Path(self.args.data) / f"{name}.tsv"
            if other := sorted({target for _, target in manifest.languages(path)} - {language}):
                raise UserError(
                    f"--tgt-lang is {language}, but {path} has references in {other[0]}: remove it, "
                    "--score-reference takes the language of each row"
                )
        args = copy.copy(args)
        args.prefix_size = self.prefix_size  # which fairseq asks for
        return args

    def prefix_of(self, sample: dict[str, Any], given: Tensor | None) -> Tensor | None:
        """Return the tokens (B, 1) that the translations of a batch begin with; ``None``: any.

        ``given`` are those of ``--prefix-size``.

        Raises:
            UserError: no target language for a multilingual model, as in ``fairseq-interactive`` with --prefix-size.
        """
        if self.forced:
            frames = sample["net_input"]["src_lengths"]
            return torch.tensor(self.forced, device=frames.device).expand(len(frames), -1)
        if given is None:
            with user_errors():
                forced_tokens(self.target_dictionary, self.prefix_size, None)
        return given
