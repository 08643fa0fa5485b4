"""An independent ASR model of English: pocketsphinx, whose package contains an acoustic model."""

from __future__ import annotations

import math
import re
import tempfile
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np

from mla_fairseq.errors import install

RATE = 16000
DISCOUNT = 0.5
START, END = "<s>", "</s>"


def words(text: str) -> list[str]:
    """Return the words of an English text as the ASR model writes them: lower case, no punctuation, no accents."""
    # NFKD splits a letter from its accent: "é" becomes "e", not a gap in the word
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return re.sub(r"[^a-z' ]", " ", plain.lower().replace("\u2019", "'")).split()


def bigrams(sentences: Iterable[list[str]]) -> str:
    """Return a bigram language model in ARPA format, by absolute discounting (Ney, Essen and Kneser 1994).

    Each sentence is a list of words. The discount is 0.5; its weight goes to the unigram distribution.

    Raises:
        ValueError: no word in the sentences.
    """
    followed: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    seen: Counter[str] = Counter()
    texts = list(sentences)
    for sentence in filter(None, texts):
        line = [START, *sentence, END]
        followed.update(line[:-1])
        seen.update(line[1:])
        pairs.update(pairwise(line))
    if not pairs:
        raise ValueError(f"no word for the language model in {len(texts)} texts: give texts of Latin letters")
    total = sum(seen.values())
    followers = Counter(first for first, _ in pairs)  # distinct ones
    # what discounting takes from the pairs of a word: its back-off weight
    spared = {word: DISCOUNT * followers[word] / count for word, count in followed.items()}
    single = [f"-99 {START} {math.log10(spared[START]):.4f}"]  # -99: log of 0, a sentence start is never predicted
    for word, count in sorted(seen.items()):
        back = f" {math.log10(spared[word]):.4f}" if word in spared else ""  # the sentence end has no follower
        single.append(f"{math.log10(count / total):.4f} {word}{back}")
    double = []
    for (first, second), count in sorted(pairs.items()):
        probability = (count - DISCOUNT) / followed[first] + spared[first] * seen[second] / total
        double.append(f"{math.log10(probability):.4f} {first} {second}")
    sizes = [f"ngram 1={len(single)}", f"ngram 2={len(double)}"]
    return "\n".join(["\\data\\", *sizes, "", "\\1-grams:", *single, "", "\\2-grams:", *double, "", "\\end\\", ""])


def check() -> None:
    """Check that pocketsphinx is installed.

    Raises:
        ValueError: it is not.
    """
    if find_spec("pocketsphinx") is None:
        raise ValueError(f"pocketsphinx is not installed: {install('tts')}")


class Recogniser:
    """Transcribe English speech with pocketsphinx.

    Args:
        texts: sentences from which the language model is made; ``None``: pocketsphinx's model of general English.

    Raises:
        ValueError: pocketsphinx is not installed, or no word in ``texts``.
    """

    def __init__(self, texts: Iterable[str] | None = None) -> None:
        check()
        from pocketsphinx import Decoder

        if texts is None:
            self._decoder = Decoder(samprate=RATE, loglevel="FATAL")
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bigrams.arpa"
            path.write_text(bigrams(map(words, texts)), encoding="utf-8")
            self._decoder = Decoder(samprate=RATE, loglevel="FATAL", lm=str(path))

    def knows(self, word: str) -> bool:
        """Tell whether the dictionary has a word (in lower case); other words are never recognised."""
        return self._decoder.lookup_word(word) is not None

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        """Return the words in samples (time,) between -1 and 1 at ``rate`` Hz; no samples give no words.

        Earlier calls have no effect on the result.

        Raises:
            ValueError: a sample that is not finite.
        """
        import librosa

        if not len(samples):
            return ""
        if len(wrong := samples[~np.isfinite(samples)]):
            raise ValueError(f"samples contain {wrong[0]}: use a checkpoint from before training diverged")
        peak = max(float(np.abs(samples).max()), 1e-9)  # quiet speech is recognised as well as loud speech
        scaled = librosa.resample(np.asarray(samples, np.float32) / peak, orig_sr=rate, target_sr=RATE)
        data = (16000 * scaled).clip(-32768, 32767).astype(np.int16).tobytes()
        # deprecated as unnecessary, but without it the noise estimate of the last utterance is kept
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._decoder.start_stream()
        self._decoder.start_utt()
        self._decoder.process_raw(data, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""
