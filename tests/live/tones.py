"""A model that hears tones: each stands for a sentence, so words depend on the audio alone."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from mla_fairseq.live.model import Model, Setting
from mla_fairseq.models.wait_k import WaitK
from mla_fairseq.streaming import Emission

RATE, BLOCK = 16000, 640
SENTENCES = {  # Hz of the tone: what the model writes
    250: "Guten Morgen, meine Damen und Herren.",
    400: "Heute geht es um Übersetzung in Echtzeit.",
    630: "Jedes Wort erscheint, während der Satz noch gesprochen wird.",
    1000: "Die Zahl k bestimmt, wie lange das Modell wartet.",
}
TONE, PAUSE, LEAD = 1.0, 0.4, 0.4  # seconds of a sentence, after it, and before the first one
STEP = 3  # blocks before each word
REST = 6  # blocks of silence that end a sentence


def speech(tones: list[int] | None = None) -> np.ndarray:
    """Return the sentences of some tones, all by default, as samples (N,) in [-1, 1]."""
    pieces = [np.zeros(round(RATE * LEAD))]
    for tone in tones or SENTENCES:
        pieces += [0.3 * np.sin(2 * np.pi * tone * np.arange(round(RATE * TONE)) / RATE)]
        pieces += [np.zeros(round(RATE * PAUSE))]
    return np.concatenate(pieces).astype(np.float32)


def follow(lines: list[str]) -> bool:
    """Return whether sentences follow each other as in the speech, which repeats itself; the last one may be cut."""
    every = list(SENTENCES.values())
    first = every.index(lines[0])
    expected = (every * (len(lines) + 1))[first : first + len(lines)]
    return lines[:-1] == expected[:-1] and expected[-1].startswith(lines[-1])


class Listener:
    """A session: the words of a tone come one by one while it sounds, and the rest after it."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.current = setting, setting
        self.rest = np.zeros(0, np.float32)
        self.blocks, self.stretch, self.quiet = 0, -1, 0
        self.tone: list[np.ndarray] | None = None  # blocks of the current sentence
        self.words: list[str] = []  # of it that have not come yet

    def push(self, samples: np.ndarray, final: bool = False) -> list[Emission]:
        """Return what the next samples add."""
        self.rest = np.concatenate((self.rest, samples))
        emissions: list[Emission] = []
        while len(self.rest) >= BLOCK:
            block, self.rest = self.rest[:BLOCK], self.rest[BLOCK:]
            self.blocks += 1
            emissions += self._step(block)
        return emissions + (self._end() if final else [])

    def _step(self, block: np.ndarray) -> list[Emission]:
        loud = float(np.abs(block).max()) > 0.05
        if self.tone is None and loud:
            self.stretch, self.tone, self.current, self.words = self.stretch + 1, [], self.setting, []
            self.start = (self.blocks - 1) * 40.0
        if self.tone is None:
            return []
        self.quiet = 0 if loud else self.quiet + 1
        self.tone.append(block)
        if self.quiet == REST:
            return self._end()
        steps, left = divmod(len(self.tone), STEP)
        due = steps - self.current.number
        if left or due < 0:
            return []
        if due == 0:
            self.words = self._sentence().split()
        return [self._emit(self.words.pop(0))] if self.words[1:] else []

    def _end(self) -> list[Emission]:
        if not self.tone:
            return []
        words = self.words or (self._sentence().split() if len(self.tone) < STEP * (self.current.number + 1) else [])
        self.tone, self.quiet, self.words = None, 0, []
        return [self._emit(" ".join(words), ended=True)]

    def _sentence(self) -> str:
        """Return the sentence of the tone, which a gap in the audio of a busy machine does not hide."""
        samples = np.concatenate(self.tone or [])
        power = np.abs(np.fft.rfft(samples, RATE))  # one value for each Hz
        return SENTENCES[min(SENTENCES, key=lambda tone: abs(tone - float(power.argmax())))]

    def _emit(self, text: str, ended: bool = False) -> Emission:
        return Emission(text, 0, ended, self.blocks * 40.0, self.stretch, self.start)


class Tones(Model):
    """The model of these sessions."""

    def begin(self, setting: Setting) -> Any:
        """Begin a session."""
        return Listener(setting)

    def change(self, session: Any, setting: Setting) -> None:
        """Change a session from its next sentence on."""
        session.setting = setting


def model(languages: tuple[str, ...] = ()) -> Tones:
    """Return the model, with k from 1 to 7."""
    abilities = {"monotonic": False, "streams": True, "attention": (True,)}
    translator: Any = SimpleNamespace(languages=languages, wait_k=WaitK(1, 7, STEP), **abilities)
    return Tones(translator, "demo/checkpoint_best.pt", source="en", target="" if languages else "de")
