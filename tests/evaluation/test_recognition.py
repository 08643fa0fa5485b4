"""What an independent recogniser makes of speech."""

import math
import multiprocessing
import sys

import numpy as np
import pytest

from examples.demo_corpus import espeak
from examples.demo_corpus.corpus import VOICES
from mla_fairseq.evaluation.recognition import END, START, Recogniser, bigrams, words

TEXTS = ("The doctor can travel to the city by train.", "She should go to the library on Sunday.", "The doctor can go.")


def say(text: str) -> tuple[np.ndarray, int]:
    """Speech between -1 and 1; of another process, as what this one says would change what it forks for the corpora."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_say, [text])


def _say(text: str) -> tuple[np.ndarray, int]:
    engine = espeak.engine()
    voice = espeak.Voice(VOICES[1].name, rate=160)
    return engine.say(text, voice).astype(np.float32) / 32768, engine.sample_rate


def test_words_are_those_of_the_recogniser() -> None:
    assert words("It\u2019s \u2014 \u201cthe Doctor\u201d, 5 o'clock!") == ["it's", "the", "doctor", "o'clock"]


def test_what_may_follow_a_word_sums_to_one() -> None:
    """Seen pairs as they are written, unseen ones by the weight of the word times the second word alone."""
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


def test_speech_is_understood_and_noise_is_not() -> None:
    listener = Recogniser(TEXTS)
    samples, rate = say(TEXTS[0])
    assert listener.transcribe(samples, rate) == " ".join(words(TEXTS[0]))
    assert listener.transcribe(samples / 50, rate) == " ".join(words(TEXTS[0]))
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * rate).astype(np.float32)
    murmur = samples + 0.2 * np.random.default_rng(1).normal(0, 0.1, len(samples)).astype(np.float32)
    alone = Recogniser(TEXTS).transcribe(murmur, rate)
    assert listener.transcribe(noise, rate) != " ".join(words(TEXTS[0]))
    assert listener.transcribe(murmur, rate) == alone, "what came before has no part in it"
    assert listener.transcribe(samples, rate) == " ".join(words(TEXTS[0]))
    with pytest.raises(ValueError, match="not finite"):
        listener.transcribe(samples * np.nan, rate)
    assert listener.transcribe(samples[:0], rate) == ""


def test_its_own_language_model_is_of_english_at_large() -> None:
    samples, rate = say("The people of the world.")
    assert set(Recogniser().transcribe(samples, rate).split()) & {"people", "world"}


def test_accents_are_no_gaps_and_strange_words_are_known_as_such() -> None:
    assert words("The café\u2019s façade, 5 times!") == ["the", "cafe's", "facade", "times"]
    listener = Recogniser(TEXTS)
    assert listener.knows("world") and not listener.knows("mboshi")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there is no word"):
        Recogniser(["5 6", ""])
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(ValueError, match=r"pocketsphinx is not installed: run pip install .*\[tts\]"):
        Recogniser()
