"""A trained simultaneous model behind four verbs: listen, read, step, go back. fairseq stays in here."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from torch import Tensor

from mla_fairseq.attention import State, fork, nbytes, reorder
from mla_fairseq.checkpoints import load_checkpoint
from mla_fairseq.errors import UserError
from mla_fairseq.models.s2t_transformer_mla import S2TTransformerMLAModel
from mla_fairseq.models.wait_k import WaitK
from mla_fairseq.streaming.frontend import FeatureStream, Normalisation

log = logging.getLogger(__name__)


class Translator:
    """A model, its dictionary and its normalisation: what all streams share, and none changes."""

    def __init__(self, model: S2TTransformerMLAModel, dictionary: Dictionary, normalisation: Normalisation) -> None:
        self.model = model.eval()
        self.dictionary = dictionary
        self.normalisation = normalisation
        self._noted: set[str] = set()

    @classmethod
    def load(cls, checkpoint: Path | str, data: Path | str, config_yaml: str = "config_st.yaml") -> Translator:
        """From a checkpoint and the folder that it was prepared in (dictionary, statistics and ``config_yaml``).

        Raises:
            ValueError: a file that is missing or of another kind, or a model of another package.
        """
        load_checkpoint(Path(checkpoint))
        normalisation = Normalisation.read(Path(data) / config_yaml)
        level = logging.root.manager.disable
        logging.disable(max(level, logging.INFO))  # fairseq tells the options of every model that it loads
        try:
            overrides = {"data": str(data), "config_yaml": config_yaml}
            models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], overrides)
        except UserError as error:  # which ends a command; a program may go on
            raise ValueError(str(error).removeprefix("error: ")) from error
        finally:
            logging.disable(level)
        if not isinstance(models[0], S2TTransformerMLAModel):
            raise ValueError(f"{checkpoint} holds a {type(models[0]).__name__}, which cannot stream")
        return cls(models[0].float(), task.target_dictionary, normalisation)

    def to(self, device: str, fp16: bool = False) -> None:
        """Move the model; streams that are open stay where they were.

        Raises:
            ValueError: a device that is not here.
        """
        try:
            self.model.to(device, torch.float16 if fp16 else torch.float32)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"device {device!r} cannot be used here ({reason}): take cpu") from error

    def note(self, message: str) -> None:
        """Log something about the model, once."""
        if message not in self._noted:
            self._noted.add(message)
            log.info(message)

    @property
    def wait_k(self) -> WaitK | None:
        """The rule that the model was trained with; ``None``: an offline model."""
        return self.model.decoder.wait_k

    @property
    def parameter(self) -> Tensor:
        """Any parameter: what the device and the number format of inputs follow."""
        return self.model.encoder.layer_norm.weight if self.model.encoder.layer_norm else next(self.model.parameters())

    def open(self) -> Stream:
        """A stream that has heard and written nothing.

        Raises:
            ValueError: a model that cannot stream.
        """
        if not self.model.encoder.streams:
            raise ValueError(
                "this model's encoder hears whole utterances: train one with --encoder-chunk-size, or take an agent "
                "for offline models, such as AlignAttAgent"
            )
        empty = self.parameter.new_zeros(0, 1, self.model.encoder.channels)
        return Stream(self, FeatureStream(self.normalisation), {}, {}, empty)


@dataclass
class Stream:
    """One recording on its way through the model; hypotheses are dim 0 of the decoder's state.

    Attributes:
        translator: the model.
        features: samples to features.
        encoder_state, decoder_state: what the model carries; replaced, never changed inside.
        unread: (n, 1, C), encoder states that are there and that the decoder has not read.
        frames: frames that were heard.
        before: encoder states that earlier sentences have read; all other numbers count from there.
        read: encoder states that the decoder has read.
        fed, fed_all: those that monotonic heads were given, and whether they know that there is no more.
        refused, forced: whether they want more than these, and whether they wrote only because there is no more.
        written: tokens that the decoder holds.
        ended: whether the recording is over.
        closed: whether nobody will read what comes, so that it is heard and not encoded.
    """

    translator: Translator
    features: FeatureStream
    encoder_state: State
    decoder_state: State
    unread: Tensor
    frames: int = 0
    before: int = 0
    read: int = 0
    fed: int = 0
    fed_all: bool = False
    refused: bool = False
    forced: bool = False
    written: int = 0
    ended: bool = False
    closed: bool = False

    @property
    def heard(self) -> int:
        """Encoder states that are there."""
        return self.read + len(self.unread)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is carried from one piece of audio to the next."""
        audio = self.features.banks.tail.nbytes
        return nbytes(self.encoder_state) + nbytes(self.decoder_state) + self.unread.nbytes + audio

    @torch.no_grad()
    def listen(self, samples, final: bool = False) -> None:
        """Take the next samples (N,) at 16 kHz; ``final`` ends the recording.

        Raises:
            ValueError: samples that are no speech of one channel; the stream is as it was.
            RuntimeError: after the end.
        """
        frames = self.features.push(samples, final)
        self.frames += len(frames)
        self.ended = final
        if (len(frames) or final) and not self.closed:
            encoder = self.translator.model.encoder
            frames = torch.from_numpy(frames).to(self.translator.parameter).unsqueeze(0)
            self.unread = torch.cat((self.unread, encoder.stream(frames, self.encoder_state, final)))

    @torch.no_grad()
    def step(self, tokens: Tensor, upto: int) -> Tensor | None:
        """Log-probabilities (B, V) of what follows ``tokens`` (B,), upon the first ``upto`` encoder states.

        Monotonic heads read of these what they want. ``None``: they want more, and nothing has happened.
        """
        decoder = self.translator.model.decoder
        if decoder.monotonic:
            scores = self._attempt(tokens, upto)
            if scores is None:
                return None
        else:
            source = self._read(upto, len(tokens))
            scores = decoder.step(tokens.unsqueeze(1), self.written, source, self.decoder_state)
        self.written += 1
        return scores.float().log_softmax(-1)

    def _read(self, upto: int, hypotheses: int) -> Tensor | None:
        """Encoder states (n, B, C) that come up to there; ``None``: no new one."""
        new, self.unread = self.unread[: upto - self.read], self.unread[upto - self.read :].clone()
        self.read += len(new)
        return new.expand(-1, hypotheses, -1) if len(new) else None

    def _attempt(self, tokens: Tensor, upto: int) -> Tensor | None:
        """As ``step``, with monotonic heads: what they were fed stays unread until they have read it."""
        decoder = self.translator.model.decoder
        new = self.unread[self.fed - self.read : upto - self.read]
        if len(new) or self.ended > self.fed_all:
            decoder.feed(new.expand(-1, len(tokens), -1), self.decoder_state, self.ended)
            self.fed, self.fed_all, self.refused = self.fed + len(new), self.ended, False
        if self.refused:
            return None
        before = fork(self.decoder_state)
        scores, seen, wants = decoder.attempt(tokens.unsqueeze(1), self.written, self.decoder_state)
        self.forced = bool(wants.any())
        if self.forced and not self.fed_all:
            self.decoder_state, self.refused = before, True
            return None
        self._read(max(self.read, int(seen.max())), len(tokens))
        return scores

    def keep(self, hypotheses: Tensor) -> None:
        """Let hypothesis ``hypotheses[i]`` (int64) go on at place i; all others end."""
        reorder(self.decoder_state, hypotheses)

    def begin_sentence(self) -> None:
        """Forget what was written and read; the encoder goes on, and the next sentence begins at the unread states."""
        self.before += self.read
        self.decoder_state, self.read, self.written = {}, 0, 0
        self.fed, self.fed_all, self.refused, self.forced = 0, False, False, False

    def close(self) -> None:
        """Let go of all that is carried: nobody will read what comes."""
        self.closed, self.unread = True, self.unread[:0]
        self.encoder_state, self.decoder_state = {}, {}

    def fork(self) -> Stream:
        """A snapshot: each goes its own way from here. Copies no tensor."""
        return replace(
            self,
            features=self.features.fork(),
            encoder_state=fork(self.encoder_state),
            decoder_state=fork(self.decoder_state),
        )
