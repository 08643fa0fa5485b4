"""Let ``fairseq-generate`` score against the manifest's text, where it would rebuild references from tokens."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence

import torch
from fairseq.data import Dictionary
from fairseq.data.audio.data_cfg import S2TDataConfig
from torch import Tensor

from mla_fairseq.streaming.words import SPACE

log = logging.getLogger(__name__)


class References:
    """The references of a set, each as one symbol that fairseq spells as the manifest's text.

    Unknown characters vanish from a reference that is rebuilt from its tokens, and SentencePiece normalises characters:
    the scores of such references are too high.

    Args:
        dictionary: the target dictionary. A symbol is added to it for each reference; no model sees them.
        sentencepiece: fairseq decodes the text by SentencePiece.
    """

    def __init__(self, dictionary: Dictionary, sentencepiece: bool) -> None:
        self.dictionary, self.sentencepiece = dictionary, sentencepiece

    @classmethod
    def build(cls, args: Namespace, config: S2TDataConfig, dictionary: Dictionary) -> References | None:
        """Return the references for the scorer of ``fairseq-generate``; ``None`` where it needs tokens. Log which.

        Args:
            args: the command's flags.
            config: the data configuration.
            dictionary: the target dictionary.
        """
        if not hasattr(args, "results_path") or hasattr(args, "buffer_size"):  # another command scores nothing
            return None
        scoring, tokenizer = args.scoring, config.bpe_tokenizer.get("bpe")
        if scoring == "bleu":
            log.warning("--scoring bleu compares tokens of the vocabulary: use --scoring sacrebleu for BLEU of texts")
            return None
        if config.pre_tokenizer.get("tokenizer") or tokenizer not in (None, "sentencepiece"):
            log.warning(f"{scoring} is computed on references rebuilt from tokens, without unknown characters")
            return None
        log.info(f"{scoring} is computed on the references of the manifest")
        return cls(dictionary, tokenizer is not None)

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return one symbol for each text, (B, 1)."""
        return torch.tensor([[self.dictionary.add_symbol(self._symbol(text))] for text in texts])

    def _symbol(self, text: str) -> str:
        """Return a symbol that fairseq decodes to the text, and that is no token of any text."""
        if self.sentencepiece:
            return f"{SPACE}{SPACE}{text.replace(' ', SPACE)}"  # the first two vanish
        return text if " " in text else f" {text}"
