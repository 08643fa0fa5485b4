"""An exported text-to-speech model: text in, frames of a spectrogram out while they are decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mla_fairseq.data.spoken_text import WORD_END, SpokenText
from mla_fairseq.edge.runtime.folder import COPY, Folder, load_folder
from mla_fairseq.edge.runtime.graph import Arrays, Graph
from mla_fairseq.edge.runtime.names import CONFIG, TEXT_TO_SPEECH, UNKNOWN
from mla_fairseq.edge.runtime.rows import Rows
from mla_fairseq.edge.runtime.vocoder import griffin_lim
from mla_fairseq.synthesis.known import check_known
from mla_fairseq.synthesis.limits import Limits


class EdgeSpeaker:
    """An exported text-to-speech model. Utterances share it and do not change it.

    Args:
        folder: the checked folder.
        precision: ``int8`` or ``float32``; ``None``: int8 where the folder has it.

    Attributes:
        sample_rate: samples per second (Hz).
        speakers: names of the speakers; none for a model of one speaker.

    Raises:
        ValueError: the folder lacks a file or a number, or its graphs do not fit each other.
    """

    def __init__(self, folder: Folder, precision: str | None = None) -> None:
        self.symbols = {symbol: number for number, symbol in enumerate(folder.tokens())}
        self.encoder, self.decoder, self.postnet = (
            Graph(folder.graph(part, precision)) for part in ("encoder", "decoder", "postnet")
        )
        self.magnitudes = Graph(folder.graph("magnitudes", "float32"))
        self.sample_rate, self.hop, self.window = (
            folder.get(name, int, 1) for name in ("sample_rate", "hop_length", "win_length")
        )
        self.pad, self.unknown, self.eos = (folder.get(name, int, 0) for name in ("pad", "unk", "eos"))
        self.delay, self.dropout = folder.get("delay", int, 0), folder.get("prenet_dropout", float, 0)
        self.speakers = [str(name) for name in folder.get("speakers", list)]
        self.spoken_text, limits = (folder.get(name, dict) for name in ("spoken_text", "limits"))
        try:
            self.limits = Limits(**limits)
            self.longest = self.encoder.shapes["tokens"][1] - 1  # the end of the sentence is a symbol too
            self.frames, self.bins = self.magnitudes.shapes["features"]
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{folder.path / CONFIG} does not fit its graphs ({error}): {COPY}") from error

    @classmethod
    def load(cls, folder: Path | str, precision: str | None = None) -> EdgeSpeaker:
        """Load the folder of an exported model.

        Raises:
            ValueError: as ``load_folder`` and the class.
        """
        return cls(load_folder(folder, TEXT_TO_SPEECH), precision)

    def split(self, text: str) -> list[str]:
        """Return the symbols of a text, as in the training set.

        Raises:
            ValueError: a text without symbols, phonemes where phonemizer is not installed, or a model whose data say
                nothing about texts: give symbols.
        """
        (line,) = SpokenText.from_config({"spoken_text": self.spoken_text} if self.spoken_text else {}).symbols([text])
        if not line:
            raise ValueError(f"a text has no symbol ({text!r}): remove it")
        return line

    def say(self, symbols: Sequence[str], speaker: str | None = None, seed: int = 1) -> Utterance:
        """Return the utterance of a sentence, which is decoded while its frames are read.

        Args:
            symbols: characters or phonemes, with ``|`` between words.
            speaker: one of ``speakers``, in a model that has some.
            seed: seed of the pre-net's dropout, which is never off.

        Raises:
            ValueError: too many symbols or only unknown ones, or an unknown speaker.
        """
        check_known([" ".join(symbols)], [symbols], self.symbols, WORD_END)
        if len(symbols) > self.longest:
            raise ValueError(
                f"the text has {len(symbols)} symbols, but the model takes at most {self.longest}: split it into "
                "sentences"
            )
        tokens = [*(self.symbols.get(symbol, self.unknown) for symbol in symbols), self.eos]
        return Utterance(self, tokens, self._speaker(speaker), seed)

    def speak(self, frames: NDArray) -> NDArray:
        """Return samples (time,), float32, of log-mel frames (T, F), by Griffin-Lim.

        Raises:
            ValueError: the frames are not finite, or no speech.
        """
        rows = -len(frames) % self.frames
        padded = np.pad(frames, ((0, rows), (0, 0)), mode="edge").reshape(-1, self.frames, self.bins)
        found = [self.magnitudes.run({"features": part}, {})[0]["magnitudes"] for part in padded]
        magnitudes = np.concatenate(found)[: len(frames)]
        if not np.isfinite(magnitudes).all():
            raise ValueError("the frames are no speech, because the training of the model diverged: use another model")
        return griffin_lim(magnitudes, self.hop, self.window)

    def _speaker(self, name: str | None) -> int:
        if not self.speakers and name is None:
            return 0
        if name not in self.speakers:
            if not self.speakers:
                raise ValueError(f"--speaker is {name}, but the model has one speaker: remove it")
            raise ValueError(f"--speaker must be one of {', '.join(self.speakers)}, but is {name}")
        return self.speakers.index(name)


class Utterance:
    """A sentence while it is decoded: iterate over it once, to get log-mel frames (T, F) as soon as they are final.

    They are a fixed number of decoder steps behind the decoder, because the post-net looks ahead. Memory does not grow
    with the length of the utterance.

    Attributes:
        steps: decoder steps so far.
        ended: whether the model has ended the utterance; if all frames were read and it has not, a limit did.
    """

    def __init__(self, model: EdgeSpeaker, tokens: Sequence[int], speaker: int, seed: int) -> None:
        self.model, self.steps, self.ended = model, 0, False
        padded = np.full(model.encoder.shapes["tokens"], model.pad, np.int64)
        padded[0, : len(tokens)] = tokens
        data = {"tokens": padded, "speaker": np.array([[speaker]])}
        self.memory, _ = model.encoder.run({name: data[name] for name in model.encoder.data}, {})
        self.numbers = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[NDArray]:
        postnet, delay = self.model.postnet, self.model.delay
        state, taken = postnet.fresh(), 0
        for frames, length in self._chunks():
            found, state = postnet.run({"frames": frames, "length": np.array([length])}, state)
            steps = np.arange(taken - delay, taken - delay + len(frames))
            features = found["features"][(steps >= 0) & (steps < length)]
            taken += len(frames)
            if len(features):
                yield features.reshape(-1, self.model.bins)

    def _chunks(self) -> Iterator[tuple[NDArray, int]]:
        """Yield frames (C, n F) for the post-net, and the number of steps: the last chunks are after the end."""
        chunk, delay = self.model.postnet.shapes["frames"][0], self.model.delay
        frames, given = np.zeros(self.model.postnet.shapes["frames"], np.float32), 0
        for frame in self._decoded():
            frames[self.steps - given - 1] = frame
            if self.steps - given == chunk:
                yield frames.copy(), UNKNOWN
                given += chunk
        while given < self.steps + delay:
            yield frames, self.steps
            given += chunk

    def _decoded(self) -> Iterator[NDArray]:
        """Yield the frames (n F,) of each decoder step."""
        decoder, limits = self.model.decoder, self.model.limits
        data: Arrays = {name: self.memory[name] for name in decoder.data if name != "keep"}
        state = decoder.fresh()
        for _ in range(limits.steps(int(self.memory["expected"][0]) or None)):
            found, state = decoder.run(data | {"keep": self._keep()}, state)
            self.steps += 1
            frame = state["frame"]
            assert not isinstance(frame, Rows)
            yield frame[0]
            if found["end"][0] > limits.threshold:
                self.ended = True
                return

    def _keep(self) -> NDArray:
        """Draw the factors of the pre-net's outputs."""
        rate = 1 - self.model.dropout
        kept = self.numbers.random(self.model.decoder.shapes["keep"], np.float32) < rate
        return kept.astype(np.float32) / np.float32(rate or 1)
