"""Score synthesised speech against the recorded speech, utterance by utterance."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from mla_fairseq.evaluation.offline import word_error_rate
from mla_fairseq.evaluation.recognition import Recogniser, words
from mla_fairseq.evaluation.spectra import SpectraScores, mel_cepstral_distortion
from mla_fairseq.files import write_text

HEADER = ("id", "text", "heard", "heard_of_the_recording")


class SynthesisScores:
    """Scores of a test set, whose utterances are added one after the other.

    Args:
        rate: sample rate in Hz.
        recogniser: an ASR model, to measure word error rates too.
    """

    def __init__(self, rate: int, recogniser: Recogniser | None = None) -> None:
        self.rate, self.recogniser = rate, recogniser
        self.rows: list[tuple[float, float, float, bool]] = []
        self.transcripts: list[tuple[str, str, str, str]] = []

    def add(
        self, name: str, text: str, made: np.ndarray, recorded: np.ndarray, seconds: tuple[float, float], ended: bool
    ) -> None:
        """Compare an utterance with the recorded one, both through the same vocoder.

        Args:
            name: id of the utterance.
            text: its text.
            made, recorded: samples (time,) of synthesised and recorded speech.
            seconds: duration of the recorded and the synthesised speech.
            ended: whether the model ended it, and no limit.
        """
        self.rows.append((mel_cepstral_distortion(recorded, made, self.rate), *seconds, ended))
        if self.recogniser:
            made_words, recorded_words = (self.recogniser.transcribe(one, self.rate) for one in (made, recorded))
            self.transcripts.append((name, " ".join(words(text)), made_words, recorded_words))

    def figures(self) -> dict[str, float]:
        """Return means over the set; word error rates are per 100 words."""
        found = asdict(SpectraScores.of(self.rows))
        if self.recogniser:
            _, texts, made, recorded = map(list, zip(*self.transcripts, strict=True))
            found["word_error_rate"] = word_error_rate(made, texts)
            found["recorded_word_error_rate"] = word_error_rate(recorded, texts)
        return found

    def write_transcripts(self, path: Path) -> None:
        """Write the ASR model's transcripts as tsv: id, text, and transcripts of synthesised and recorded speech."""
        write_text(path, "".join("\t".join(row) + "\n" for row in [HEADER, *self.transcripts]))
