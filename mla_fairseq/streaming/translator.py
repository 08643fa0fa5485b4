"""A trained model with what streaming needs beside it: dictionary and normalisation."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from torch import Tensor

from mla_fairseq.checkpoints import load_checkpoint
from mla_fairseq.errors import UserError
from mla_fairseq.models.registration import register
from mla_fairseq.models.s2t_transformer_mla import S2TTransformerMLAModel
from mla_fairseq.models.wait_k import WaitK
from mla_fairseq.streaming.frontend import Normalisation
from mla_fairseq.streaming.words import join

log = logging.getLogger(__name__)


class Translator:
    """A model, its dictionary and its normalisation: shared by all sessions, changed by none."""

    def __init__(self, model: S2TTransformerMLAModel, dictionary: Dictionary, normalisation: Normalisation) -> None:
        self.model = model.eval()
        self.dictionary = dictionary
        self.normalisation = normalisation
        self._logged: set[str] = set()

    @classmethod
    def load(cls, checkpoint: Path | str, data: Path | str, config_yaml: str = "config_st.yaml") -> Translator:
        """Load a checkpoint and, from the folder its data was prepared in, dictionary, statistics and ``config_yaml``.

        Raises:
            ValueError: a file that is missing or of another type, or a model of another package.
        """
        register()
        load_checkpoint(Path(checkpoint))
        normalisation = Normalisation.read(Path(data) / config_yaml)
        level = logging.root.manager.disable
        logging.disable(max(level, logging.INFO))  # fairseq logs all options of every model that it loads
        try:
            overrides = {"data": str(data), "config_yaml": config_yaml}
            models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], overrides)
        except UserError as error:  # it would end a program that may want to go on
            raise ValueError(str(error).removeprefix("error: ")) from error
        finally:
            logging.disable(level)
        if not isinstance(models[0], S2TTransformerMLAModel):
            raise ValueError(f"{checkpoint} holds a {type(models[0]).__name__}, which cannot stream")
        return cls(models[0].float(), task.target_dictionary, normalisation)

    def to(self, device: str, fp16: bool = False) -> None:
        """Move the model; sessions already started do not move with it.

        Raises:
            ValueError: a device that is not available.
        """
        try:
            self.model.to(device, torch.float16 if fp16 else torch.float32)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"device {device!r} is not available ({reason}): use cpu") from error

    def log_once(self, message: str) -> None:
        """Log something about the model, the first time it is reported."""
        if message not in self._logged:
            self._logged.add(message)
            log.info(message)

    @property
    def wait_k(self) -> WaitK | None:
        """Return the rule that the model was trained with; ``None``: an offline or monotonic model."""
        return self.model.decoder.wait_k

    @property
    def parameter(self) -> Tensor:
        """Return any parameter: device and number format of inputs follow it."""
        return self.model.encoder.layer_norm.weight if self.model.encoder.layer_norm else next(self.model.parameters())

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Return the subword pieces of tokens."""
        return [self.dictionary[token] for token in tokens]

    def text(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens, as fairseq prints it."""
        return join(self.pieces(tokens))
