"""A trained model with the dictionary and the normalisation that streaming needs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from numpy.typing import NDArray
from torch import Tensor

from mla_fairseq.files import as_path
from mla_fairseq.models.ctc_prefix import check_target
from mla_fairseq.models.loading import load_model
from mla_fairseq.models.overrides import check_fixed
from mla_fairseq.models.overrides import parse_model_overrides as parse_model_overrides
from mla_fairseq.models.registration import register
from mla_fairseq.models.s2t_transformer_mla import S2TTransformerMLAModel
from mla_fairseq.models.target_language import forced_tokens, languages
from mla_fairseq.models.wait_k import WaitK
from mla_fairseq.streaming.frontend import Normalisation
from mla_fairseq.streaming.hypotheses import DecoderHypotheses, DecoderRedecoding
from mla_fairseq.streaming.interface import StreamingModel
from mla_fairseq.streaming.joint import JointScores
from mla_fairseq.streaming.source import EncoderSource


class Translator(StreamingModel):
    """A speech translation model with its dictionary and normalisation.

    Sessions share a translator and do not change it.

    Args:
        model: the model; put into evaluation mode.
        dictionary: target dictionary, of SentencePiece pieces.
        normalisation: statistics of the filter banks that the model was trained on.
    """

    def __init__(self, model: S2TTransformerMLAModel, dictionary: Dictionary, normalisation: Normalisation) -> None:
        super().__init__()
        self.model = model.eval()
        self.dictionary = dictionary
        self.normalisation = normalisation

    @classmethod
    def load(
        cls,
        checkpoint: Path | str,
        data: Path | str,
        config_yaml: str = "config_st.yaml",
        overrides: Mapping[str, Any] | None = None,
    ) -> Translator:
        """Load a model for streaming, in float32 on the CPU.

        Args:
            checkpoint: saved by fairseq-train; a stock ``s2t_transformer`` or ``convtransformer`` is loaded as the
                model of this package that computes the same.
            data: the prepared folder of the model, with its dictionary and statistics.
            config_yaml: data configuration in ``data``.
            overrides: options of the model to change, such as ``{"attn_type": "relu"}``.

        Raises:
            ValueError: an argument has another type, a file is missing or of another type, the model cannot stream, or
                an override has no effect.
        """
        checkpoint, data = as_path(checkpoint, "the checkpoint"), as_path(data, "the data folder")
        options = {"data": str(data), "config_yaml": config_yaml, "task": "speech_to_text_mla"}
        options |= check_fixed(overrides)
        level = logging.root.manager.disable
        logging.disable(max(level, logging.INFO))  # fairseq logs all options of every model that it loads
        try:
            register()
            model, task = load_model(checkpoint, options)
        finally:
            logging.disable(level)
        normalisation = Normalisation.load(data / config_yaml)  # the task has checked the folder
        if not isinstance(model, S2TTransformerMLAModel):
            raise ValueError(
                f"{checkpoint} holds a {type(model).__name__}, which cannot stream: give a model that was trained "
                "with an architecture of mla_fairseq, such as s2t_transformer_simul_mla"
            )
        if normalisation.utterance and model.encoder.streams:
            raise ValueError(
                f"{data / config_yaml} transforms features by utterance_cmvn, but the encoder is chunked: "
                "prepare the data with mla-prepare --cmvn global and train again"
            )
        return cls(model.float(), task.target_dictionary, normalisation)

    def to(self, device: str, fp16: bool = False) -> None:
        """Move the model to ``device``, in half precision with ``fp16``; sessions already started do not move with it.

        Raises:
            ValueError: the device is not available.
        """
        try:
            self.model.to(device, torch.float16 if fp16 else torch.float32)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"device {device!r} is not available ({reason}): use cpu") from error

    def forced(self, language: str | None) -> list[int]:
        """Return the tokens that every translation into ``language`` begins with; see ``forced_tokens``.

        Raises:
            ValueError: an unknown language, none for a multilingual model, or one for a model of one language.
        """
        option = "tgt_lang (--tgt-lang)"  # the argument of sessions, and the flag of agents
        return forced_tokens(self.dictionary, self.model.decoder.prefix_size, language, option)

    @property
    def languages(self) -> list[str]:
        """Return the target languages of a multilingual model; none for a model of one language."""
        return languages(self.dictionary) if self.model.decoder.prefix_size else []

    @property
    def eos(self) -> int:
        """Return the symbol that ends a sentence."""
        return self.dictionary.eos()

    @property
    def pad(self) -> int:
        """Return the symbol that no sentence has."""
        return self.dictionary.pad()

    @property
    def streams(self) -> bool:
        """Return whether the encoder is chunked."""
        return self.model.encoder.streams

    @property
    def monotonic(self) -> bool:
        """Return whether the model has monotonic attention."""
        return self.model.decoder.monotonic is not None

    @property
    def has_boundary(self) -> bool:
        """Return whether the encoder is chunked and has a boundary output."""
        return self.streams and self.model.encoder.boundary is not None

    @property
    def attention(self) -> tuple[int, int]:
        """Return the decoder layers and the heads of each whose weights ``redecode`` can return."""
        return len(self.model.decoder.layers), self.model.decoder.layers[0].encoder_attn.num_heads

    @property
    def wait_k(self) -> WaitK | None:
        """Return the wait-k rule that the model was trained with; ``None`` for an offline or monotonic model."""
        return self.model.decoder.wait_k

    @property
    def parameter(self) -> Tensor:
        """Return a parameter of the encoder, whose device and dtype inputs must have."""
        return self.model.encoder.layer_norm.weight if self.model.encoder.layer_norm else next(self.model.parameters())

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Return the subword pieces of ``tokens``."""
        return [self.dictionary[token] for token in tokens]

    def frames_before(self, states: int) -> int:
        """Return the frames that must have arrived for the first ``states`` states, unless the recording ends."""
        return self.model.encoder.frames_before(states)

    def begin_source(self) -> EncoderSource:
        """Return the source of a new recording."""
        return EncoderSource.begin(self)

    def check_ctc(self) -> None:
        """Check that the model has a CTC output for the translation.

        Raises:
            ValueError: it has none.
        """
        check_target(self.model)

    def begin_sentence(self, ctc_weight: float = 0.0) -> DecoderHypotheses:
        """Return the decoder state of a new sentence; ``ctc_weight``: that of CTC prefix scores."""
        return DecoderHypotheses(self.model.decoder, self._joint(ctc_weight))

    @torch.no_grad()
    def redecode(
        self,
        states: Tensor,
        given: Sequence[int],
        layer: int | None,
        heads: Sequence[int],
        ctc_weight: float = 0.0,
        ended: bool = False,
    ) -> DecoderRedecoding:
        """Return a new decoding from all ``states`` (S, 1, C) after the tokens ``given``."""
        joint, tokens = self._joint(ctc_weight), [self.eos, *given]
        return DecoderRedecoding(self.model.decoder, states, tokens, layer, heads, joint, ended)

    def _joint(self, weight: float) -> JointScores | None:
        """Return joint scores for a new sentence; ``None`` for a weight of 0."""
        model = self.model
        return JointScores(model.encoder.ctc, weight, self.eos, model.decoder.prefix_size) if weight else None

    @staticmethod
    def places(scores: NDArray, count: int) -> NDArray:
        """Return the indices of the ``count`` largest ``scores`` (N,), in the order of ``fairseq-generate``."""
        return torch.from_numpy(scores).topk(count).indices.numpy()
