"""What an independent recogniser understands: pocketsphinx, which carries an acoustic model of English."""

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
    """The words of an English text as the recogniser writes them: lower-cased, without punctuation and accents."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return re.sub(r"[^a-z' ]", " ", plain.lower().replace("\u2019", "'")).split()


def bigrams(sentences: Iterable[list[str]]) -> str:
    """A bigram language model in ARPA's format, by absolute discounting (Ney, Essen and Kneser 1994) of a half.

    Raises:
        ValueError: there is no word.
    """
    followed: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    seen: Counter[str] = Counter()
    for sentence in filter(None, sentences):
        line = [START, *sentence, END]
        followed.update(line[:-1])
        seen.update(line[1:])
        pairs.update(pairwise(line))
    if not pairs:
        raise ValueError("there is no word to make a language model of")
    total = sum(seen.values())
    kinds = Counter(first for first, _ in pairs)
    spared = {word: DISCOUNT * kinds[word] / count for word, count in followed.items()}
    single = [f"-99 {START} {math.log10(spared[START]):.4f}"]
    for word, count in sorted(seen.items()):
        back = f" {math.log10(spared[word]):.4f}" if word in spared else ""
        single.append(f"{math.log10(count / total):.4f} {word}{back}")
    double = []
    for (first, second), count in sorted(pairs.items()):
        chance = (count - DISCOUNT) / followed[first] + spared[first] * seen[second] / total
        double.append(f"{math.log10(chance):.4f} {first} {second}")
    sizes = [f"ngram 1={len(single)}", f"ngram 2={len(double)}"]
    return "\n".join(["\\data\\", *sizes, "", "\\1-grams:", *single, "", "\\2-grams:", *double, "", "\\end\\", ""])


def check() -> None:
    """Raises ValueError where pocketsphinx is not installed."""
    if find_spec("pocketsphinx") is None:
        raise ValueError(f"pocketsphinx is not installed: {install('tts')}")


class Recogniser:
    """pocketsphinx for English.

    Args:
        texts: what its language model knows of word order; ``None``: its own, of English at large.

    Raises:
        ValueError: pocketsphinx is not installed, or there is no word in ``texts``.
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
        """Whether its dictionary has a word, in small letters; what it lacks it cannot hear."""
        return self._decoder.lookup_word(word) is not None

    def transcribe(self, samples: np.ndarray, rate: int) -> str:
        """The words in samples (time,), at ``rate`` Hz and between -1 and 1; empty where there are no samples.

        Each call hears its samples alone: what came before has no part in it.

        Raises:
            ValueError: a sample that is no number.
        """
        import librosa

        if not len(samples):
            return ""
        if not np.isfinite(samples).all():
            raise ValueError("there is nothing to recognise in samples that are not finite: did the training diverge?")
        loudness = max(float(np.abs(samples).max()), 1e-9)
        heard = librosa.resample(np.asarray(samples, np.float32) / loudness, orig_sr=rate, target_sr=RATE)
        data = (16000 * heard).clip(-32768, 32767).astype(np.int16).tobytes()
        with warnings.catch_warnings():  # said to be unnecessary, but without it the last utterance's noise is kept
            warnings.simplefilter("ignore", DeprecationWarning)
            self._decoder.start_stream()
        self._decoder.start_utt()
        self._decoder.process_raw(data, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""
