"""An independent ASR model and its language model."""

import math
import multiprocessing
import sys

import numpy as np
import pytest

from examples.demo_corpus import espeak
from examples.demo_corpus.corpus import VOICES
from examples.demo_corpus.grammar import sentences
from mla_fairseq.evaluation.recognition import END, START, Recogniser, bigrams, words

TEXTS = ("The doctor can travel to the city by train.", "She should go to the library on Sunday.", "The doctor can go.")


def say(text: str) -> tuple[np.ndarray, int]:
    """Return speech between -1 and 1 and its sampling rate.

    Another process speaks: espeak-ng has state, which would change the corpora that this process makes later.
    """
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_say, [text])


def _say(text: str) -> tuple[np.ndarray, int]:
    engine = espeak.engine()
    voice = espeak.Voice(VOICES[1].name, rate=160)
    return engine.say(text, voice).astype(np.float32) / 32768, engine.sample_rate


def test_words_are_those_of_the_asr_model() -> None:
    assert words("It\u2019s \u2014 \u201cthe Doctor\u201d, 5 o'clock!") == ["it's", "the", "doctor", "o'clock"]


def test_probabilities_after_a_word_sum_to_one() -> None:
    """A seen pair has its own probability, an unseen one the back-off weight times that of its second word."""
    text = bigrams([words(text) for text in TEXTS])
    single, double = text.partition("\\2-grams:")[::2]
    alone, weights, pairs = {}, {}, {}
    for line in single.partition("\\1-grams:")[2].split("\n"):
        if line:
            chance, word, *weight = line.split()
            alone[word] = 10 ** float(chance)
            weights |= {word: 10 ** float(weight[0])} if weight else {}
    for line in double.partition("\\end")[0].split("\n"):
        if line:
            chance, *pair = line.split()
            pairs[tuple(pair)] = 10 ** float(chance)
    alone.pop(START)
    assert f"ngram 1={len(alone) + 1}" in text and f"ngram 2={len(pairs)}" in text
    assert math.isclose(sum(alone.values()), 1, rel_tol=1e-3)
    assert set(weights) == {START, *alone} - {END}
    for first, weight in weights.items():
        total = sum(pairs.get((first, second), weight * chance) for second, chance in alone.items())
        assert math.isclose(total, 1, rel_tol=2e-3)
    assert pairs["the", "doctor"] > pairs["the", "library"]


def test_speech_is_recognised_and_noise_is_not() -> None:
    # pocketsphinx maps its 134 865 words by a table that is as large as the language model: with few words it takes 6 s
    model = Recogniser([*TEXTS, *(pair.en for pair in sentences(1000, seed=1))])
    spoken = " ".join(words(TEXTS[0]))
    samples, rate = say(TEXTS[0])
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * rate).astype(np.float32)
    noisy = samples + 0.2 * np.random.default_rng(1).normal(0, 0.1, len(samples)).astype(np.float32)
    first = model.transcribe(noisy, rate)
    assert model.transcribe(samples, rate) == spoken
    assert model.transcribe(samples / 50, rate) == spoken
    assert model.transcribe(noise, rate) != spoken
    assert model.transcribe(noisy, rate) == first, "earlier utterances have no effect"
    assert model.transcribe(samples, rate) == spoken
    with pytest.raises(ValueError, match="samples contain nan"):
        model.transcribe(samples * np.nan, rate)
    assert model.transcribe(samples[:0], rate) == ""
    assert model.knows("world") and not model.knows("mboshi"), "the dictionary is larger than the language model"


def test_the_default_language_model_is_of_general_english() -> None:
    samples, rate = say("The people of the world.")
    assert set(Recogniser().transcribe(samples, rate).split()) & {"people", "world"}


def test_words_have_no_accents() -> None:
    assert words("The café\u2019s façade, 5 times!") == ["the", "cafe's", "facade", "times"]


def test_missing_words_and_packages_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no word for the language model"):
        Recogniser(["5 6", ""])
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ValueError, match=r"pocketsphinx is not installed: install the extra .*\[tts\]"):
        Recogniser()
