"""The phrase grammar: properties of its German, read from the sentences only."""

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.demo_corpus import grammar
from examples.demo_corpus.grammar import PATTERNS, sentences
from examples.demo_corpus.phrasebook.phrases import Draw

# What can end a German subordinate clause, by the person of its subject.
FINITE = {
    "ich": "habe bin werde muss kann sollte will möchte",
    "er": "hat ist wird muss kann sollte will möchte",
    "wir": "haben sind werden müssen können sollten wollen möchten",
}
PERFECT = ("habe", "hat", "haben", "bin", "ist", "sind")  # the others follow an infinitive
SUBJECTS = ("ich", "wir", "er", "sie", "der", "die", "mein", "meine", "unser", "unsere")
HOURS = ["eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"]
DIGITS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ZIG = ["zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]


def drawn(names, count, seed=0):
    """Return raw draws, with repetitions."""
    draw = Draw(Random(seed))
    return [PATTERNS[draw.one(names)](draw) for _ in range(count)]


# Word order -----------------------------------------------------------------------------------------------------------


def person(subject_first_word):
    return {"ich": "ich", "wir": "wir", "Sie": "wir"}.get(subject_first_word, "er")


@pytest.mark.parametrize("name", ["report", "whether"])
def test_subordinate_clauses_end_in_the_finite_verb_of_their_subject(name):
    """Check German grammar independently: agreement with the first word, participle or infinitive."""
    opener = re.compile(r"(?:^|, )(dass|ob) ([^,.?]+)(?=[,.?])")
    endings = set()
    for pair in drawn([name], 300):
        _, clause = opener.search(pair.de).groups()
        first, *_, before, last = clause.split()
        who = person(first)
        if last in " ".join(FINITE.values()).split():
            assert last in FINITE[who].split(), pair.de
            assert not re.search(f"(?:^| )(?:{'|'.join(FINITE[who].split())}) ", clause), pair.de
            assert before.endswith(("t", "en") if last in PERFECT else "en"), pair.de
        else:
            assert last.endswith({"ich": ("e", "weiß"), "er": ("t", "weiß"), "wir": "en"}[who]), pair.de
        endings.add(last)
    assert len(endings) > 2


def test_main_clauses_have_the_finite_verb_before_or_after_the_pronoun():
    """A main clause starts with its subject or, inverted, has the subject right after the finite verb."""
    finite = " ".join(FINITE.values()).split()
    checked = 0
    for pair in drawn(["travel", "fronted"], 600):
        german = pair.de.rstrip(".").split()
        place = next(index for index, token in enumerate(german) if token in finite)
        if german[0] in ("Ich", "Wir"):
            assert place == 1
        elif pair.en.split()[0] in ("On", "In", "At", "Yesterday", "Tomorrow", "Last", "Next", "This"):
            follower = german[place + 1]
            assert follower[0].isupper() or follower in SUBJECTS, pair.de
        else:
            continue
        checked += 1
    assert checked > 200


def test_fronted_sentences_start_with_a_time_or_a_place():
    starts = {pair.en.split()[0] for pair in drawn(["fronted"], 500)}
    assert starts <= {
        "On",
        "In",
        "At",
        "Yesterday",
        "Tomorrow",
        "Last",
        "Next",
        "This",
        *(digit.capitalize() for digit in DIGITS),
    }


# Numbers and times ----------------------------------------------------------------------------------------------------


def english_minutes(text):
    clock = re.search(r"at (?:(half past|quarter past|ten to) )?([a-z]+)(?: o'clock)?", text)
    hour = DIGITS.index(clock[2]) + 1
    return (60 * hour + {None: 0, "half past": 30, "quarter past": 15, "ten to": -10}[clock[1]]) % 720


def german_minutes(text):
    clock = re.search(r"um (?:(halb|Viertel nach|zehn vor) )?([a-zöü]+)(?: Uhr)?", text)
    hour = HOURS.index("eins" if clock[2] == "ein" else clock[2]) + 1
    return (60 * hour + {None: 0, "halb": -30, "Viertel nach": 15, "zehn vor": -10}[clock[1]]) % 720


def test_clock_times_are_the_same_time():
    pairs = drawn(["timetable"], 500)
    assert [english_minutes(pair.en) for pair in pairs] == [german_minutes(pair.de) for pair in pairs]
    assert len({english_minutes(pair.en) for pair in pairs}) == 48


def english_number(text):
    tens, _, unit = text.partition("-")
    return 10 * (TENS.index(tens) + 2) + (DIGITS.index(unit) + 1 if unit else 0)


def german_number(text):
    unit, _, tens = text.rpartition("und")
    return 10 * (ZIG.index(tens) + 2) + (HOURS.index(unit) + 1 if unit else 0)


def test_prices_are_the_same_amount():
    found = [
        (english_number(re.search(r"([\w-]+) euros", pair.en)[1]), german_number(re.search(r"(\w+) Euro", pair.de)[1]))
        for pair in drawn(["price"], 600)
        if "euros" in pair.en
    ]
    assert all(english == german for english, german in found)
    assert len(set(found)) > 60


# Whole sentences ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATTERNS)
def test_a_spoken_sentence_has_one_translation(name):
    """Words that sound alike must not need two translations, even if their spelling differs."""
    sound = {"four": "for", "two": "to", "by": "buy"}
    known = {}
    for pair in drawn([name], 2000):
        heard = " ".join(sound.get(token, token) for token in pair.en.lower().split())
        assert known.setdefault(heard, pair.de) == pair.de


def test_same_seed_same_sentences_and_other_seed_others():
    first = sentences(300, seed=1)
    assert sentences(300, seed=1) == first
    assert len(set(first) & set(sentences(300, seed=2))) < 30


def test_a_longer_list_starts_with_the_shorter():
    assert sentences(200, seed=5)[:50] == sentences(50, seed=5)


def test_thousands_of_distinct_sentences_with_hundreds_of_words():
    pairs = sentences(6000, seed=1)
    assert len({pair.en for pair in pairs}) == len({pair.de for pair in pairs}) == 6000
    for side in zip(*pairs, strict=True):
        assert 300 < len({token.strip(".,?").lower() for text in side for token in text.split()}) < 900


@given(seed=st.integers(0, 2**32), name=st.sampled_from(["all", "simple", *PATTERNS]))
def test_sentences_are_written_properly(seed, name):
    for english, german in sentences(5, seed, name):
        for text in (english, german):
            assert re.fullmatch(r"[A-ZÄÖÜ][A-Za-zÄÖÜäöüß',-]*( [A-Za-zÄÖÜäöüß',-]+)+[.?]", text)
            assert 4 <= len(text.split()) <= 14
        assert english[-1] == german[-1]


def test_simple_has_few_words():
    tokens = {token for pair in sentences(1000, 1, "simple") for token in pair.en.split()}
    assert len(tokens) < 200


def test_unknown_pattern_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown pattern \(timetabel\): .*\btimetable\b"):
        sentences(1, 1, "price,timetabel")


def test_more_sentences_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(grammar, "LENGTHS", range(5, 6))
    with pytest.raises(ValueError, match=r"too few sentences in patterns 'price' \(\d+ of 5000\)"):
        sentences(5000, 1, "price")
