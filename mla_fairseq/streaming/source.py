"""The source side of a session in PyTorch: samples in, encoder states out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mla_fairseq.attention import State, fork, nbytes
from mla_fairseq.speech.samples import as_array
from mla_fairseq.streaming.boundary_stream import BoundaryStream
from mla_fairseq.streaming.frontend import FeatureStream
from mla_fairseq.streaming.interface import Source

if TYPE_CHECKING:
    from mla_fairseq.streaming.translator import Translator


@dataclass
class EncoderSource(Source):
    """The encoder states of one recording while it arrives.

    A chunked encoder appends the states of each complete chunk; they never change. A full-context encoder encodes the
    whole recording again, so new states replace the old ones and cannot be taken.

    Attributes:
        translator: the model.
        features: converts samples to normalised filter banks.
        states: (n, 1, C), encoder states that are available and not taken.
        encoder_state: state of a chunked encoder; replaced, never changed in place.
        recording: (1, T, F), all filter banks so far; kept only for a full-context encoder.
    """

    translator: Translator
    features: FeatureStream
    states: Tensor
    recording: Tensor
    encoder_state: State = field(default_factory=dict)
    samples: int = 0
    frames: int = 0
    taken: int = 0
    ended: bool = False
    discarding: bool = False
    judge: BoundaryStream | None = None

    @classmethod
    def begin(cls, translator: Translator) -> Self:
        """Return the source of a new recording."""
        features, parameter = FeatureStream(translator.normalisation), translator.parameter
        bins = translator.normalisation.mean.shape[-1]
        states = parameter.new_zeros(0, 1, translator.model.encoder.channels)
        return cls(translator, features, states, parameter.new_zeros(1, 0, bins))

    @property
    def nbytes(self) -> int:
        """Return the bytes of tensors and samples kept from one push to the next."""
        tail = self.features.banks.tail
        judged = self.judge.nbytes if self.judge else 0
        return nbytes(self.encoder_state) + judged + sum(held.nbytes for held in (self.states, self.recording, tail))

    @torch.no_grad()
    def push(self, samples: ArrayLike, final: bool = False) -> None:
        """Process the next samples (N,) at 16 kHz; ``final`` ends the recording.

        Raises:
            ValueError: the samples are not one channel of speech; the source is unchanged.
            RuntimeError: the recording has ended.
        """
        frames = self.features.push(samples, final)
        self.samples += len(as_array(samples, "samples"))
        self.frames += len(frames)
        self.ended = final
        if (len(frames) or final) and (self.judge or not self.discarding):
            self._encode(torch.from_numpy(frames).to(self.translator.parameter).unsqueeze(0), final)

    def _encode(self, frames: Tensor, final: bool) -> None:
        encoder = self.translator.model.encoder
        if encoder.streams:
            new = encoder.stream(frames, self.encoder_state, final)
            if self.judge:
                self.judge.push(new, final)
            if not self.discarding:
                self.states = torch.cat((self.states, new))
        elif frames.shape[1]:
            self.recording = torch.cat((self.recording, frames), dim=1)
            length = torch.tensor([self.recording.shape[1]], device=frames.device)
            recording = self.translator.normalisation.over_recording(self.recording)
            self.states = encoder(recording, length)["encoder_out"][0]

    def take(self, upto: int) -> Tensor:
        """Remove and return the encoder states (n, 1, C) before ``upto``, counted from the start of the recording."""
        count = max(0, upto - self.taken)
        # a view would keep the taken states in memory, hence the copy
        taken, self.states = self.states[:count], self.states[count:].clone()
        self.taken += len(taken)
        return taken

    def listen(self) -> None:
        """Let the boundary output of the encoder judge the states from now on."""
        self.judge = BoundaryStream(self.translator.model.encoder.boundary)

    def discard(self) -> None:
        """Free the encoder states and encode nothing more, unless a judge still listens."""
        self.discarding, self.states = True, self.states[:0].clone()
        if not self.judge:
            self.encoder_state = {}

    def fork(self) -> Self:
        """Return an independent copy. Copies no tensor."""
        judge = self.judge.fork() if self.judge else None
        return replace(self, features=self.features.fork(), encoder_state=fork(self.encoder_state), judge=judge)
