"""What a live server keeps for one client."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from mla_fairseq.live.model import Model, Setting
from mla_fairseq.speech.resample import Samples
from mla_fairseq.speech.samples import INT16_RANGE
from mla_fairseq.streaming import Emission

REPORT = 0.25  # seconds between two reports of progress


class Client:
    """The stream of one client, in a worker: samples at its rate in, messages out.

    Args:
        model: the model of the server.
        rate: sample rate in Hz.
        setting: what the client has chosen.

    Attributes:
        heard: samples so far, at its rate.
    """

    def __init__(self, model: Model, rate: int, setting: Setting) -> None:
        self.model, self.rate = model, rate
        self.samples = Samples("")  # clients of low rates would fill the log
        self.session = model.begin(setting)
        self.heard, self.reported = 0, 0.0

    def change(self, setting: Setting) -> None:
        """Change the setting from the next stretch of speech on."""
        self.model.change(self.session, setting)

    def push(self, samples: np.ndarray, final: bool = False) -> list[dict[str, Any]]:
        """Translate the next samples (N,) int16 and return the messages to the client.

        Raises:
            ValueError: the model cannot be used.
        """
        began = time.perf_counter()
        self.samples.add(samples.astype(np.float32) / np.float32(INT16_RANGE), self.rate)
        emissions = self.session.push(self.samples.take(final), final)
        self.heard += len(samples)
        now = time.perf_counter()
        messages = [_words(emission, now - began) for emission in emissions]
        if not messages and now >= self.reported + REPORT:
            messages.append({"heard": round(self.heard * 1000 / self.rate)})
        self.reported = now if messages else self.reported
        return messages


def _words(emission: Emission, computing: float) -> dict[str, Any]:
    """Return the message about an emission; times of the recording are in ms, ``computing`` is in s."""
    return {
        "words": emission.text,
        "stretch": emission.stretch,
        "start": round(emission.start),
        "time": round(emission.milliseconds),
        "sentence_ended": emission.sentence_ended,
        "computing": round(computing, 4),
    }
