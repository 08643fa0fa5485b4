"""Inflection and word order of single clauses, compared with German written by hand."""

import pytest

from examples.demo_corpus.phrasebook import lexicon as lex
from examples.demo_corpus.phrasebook.actions import SHE, WE, YOU, I
from examples.demo_corpus.phrasebook.clause import (
    CAN,
    MUST,
    NOTHING,
    PAST,
    PRESENT,
    SHOULD,
    WANT,
    WILL,
    WOULD_LIKE,
    Clause,
    Pair,
    Subject,
    counted,
    definite,
    indefinite,
    possessed,
)

ANNA = Subject(Pair("Anna", "Anna"), "er")
YESTERDAY, MONDAY = Pair("yesterday", "gestern"), Pair("on Monday", "am Montag")
STATION, WHETHER = Pair("at the station", "am Bahnhof"), Pair("whether", "ob")


def word(table, english):
    """Return a noun or verb of the lexicon by its English form (and particle)."""
    return next(entry for entry in table if f"{entry.en} {getattr(entry, 'particle', '')}".strip() == english)


# Inflection -----------------------------------------------------------------------------------------------------------

OLD = Pair("old", "alt")
INFLECTION = {
    "masculine nominative": (definite(word(lex.GOODS, "table"), "nom", OLD), "the old table", "der alte Tisch"),
    "masculine accusative": (definite(word(lex.GOODS, "table"), "acc", OLD), "the old table", "den alten Tisch"),
    "masculine dative": (definite(word(lex.PEOPLE, "doctor"), "dat"), "the doctor", "dem Arzt"),
    "feminine accusative": (definite(word(lex.GOODS, "lamp"), "acc", OLD), "the old lamp", "die alte Lampe"),
    "feminine dative": (definite(word(lex.PEOPLE, "singer"), "dat", OLD), "the old singer", "der alten Sängerin"),
    "neuter accusative": (definite(word(lex.GOODS, "book"), "acc", OLD), "the old book", "das alte Buch"),
    "weak noun nominative": (definite(word(lex.PEOPLE, "student"), "nom"), "the student", "der Student"),
    "weak noun accusative": (definite(word(lex.PEOPLE, "student"), "acc"), "the student", "den Studenten"),
    "indefinite masculine": (indefinite(word(lex.GOODS, "table"), OLD), "an old table", "einen alten Tisch"),
    "indefinite feminine": (indefinite(word(lex.GOODS, "lamp"), OLD), "an old lamp", "eine alte Lampe"),
    "indefinite neuter": (indefinite(word(lex.GOODS, "book"), OLD), "an old book", "ein altes Buch"),
    "indefinite before a vowel": (indefinite(word(lex.FOOD, "apple")), "an apple", "einen Apfel"),
    "possessive nominative": (possessed(word(lex.FAMILY, "friend"), WE.owner, "nom"), "our friend", "unser Freund"),
    "possessive accusative": (possessed(word(lex.FAMILY, "friend"), I.owner, "acc"), "my friend", "meinen Freund"),
    "possessive weak dative": (
        possessed(word(lex.FAMILY, "colleague"), SHE.owner, "dat"),
        "her colleague",
        "ihrem Kollegen",
    ),
    "possessive feminine dative": (possessed(word(lex.FAMILY, "aunt"), YOU.owner, "dat"), "your aunt", "Ihrer Tante"),
    "number": (counted(Pair("six", "sechs"), word(lex.GOODS, "chair"), OLD), "six old chairs", "sechs alte Stühle"),
}


@pytest.mark.parametrize(("phrase", "english", "german"), INFLECTION.values(), ids=INFLECTION)
def test_inflects_as_written_by_hand(phrase, english, german):
    assert phrase == Pair(english, german)


# Word order -----------------------------------------------------------------------------------------------------------

CALL = Clause(ANNA, word(lex.MEETING, "call"), PAST, definite(word(lex.PEOPLE, "doctor")), time=YESTERDAY)
FLY = Clause(WE, word(lex.MOTION, "fly"), PAST, goal=Pair("to Rome", "nach Rom"), time=MONDAY)
WAIT = Clause(I, word(lex.MEETING, "wait for"), PRESENT, definite(word(lex.PEOPLE, "driver")), place=STATION)
TRAVEL = Clause(
    WE, lex.TRAVEL[0], WILL, goal=Pair("to Vienna", "nach Wien"), manner=Pair("by train", "mit dem Zug"), time=MONDAY
)
BUY = Clause(ANNA, lex.TRADE[0], MUST, indefinite(word(lex.GOODS, "lamp")), definite=False, place=STATION, time=MONDAY)
KNOW = Clause(ANNA, lex.KNOW[0], PRESENT, negated=True)
BRING = Clause(
    ANNA,
    word(lex.TRADE, "bring"),
    WOULD_LIKE,
    definite(word(lex.GOODS, "hat")),
    recipient=Pair("Mr Becker", "Herrn Becker"),
)
TELL = Clause(YOU, lex.TELL[0], CAN, recipient=Pair("me", "mir"))
HELP = Clause(SHE, word(lex.MEETING, "help"), WANT, definite(word(lex.PEOPLE, "student"), "dat"))
ORDERS = {
    "perfect": (CALL.main(), "Anna called the doctor yesterday", "Anna hat gestern den Arzt angerufen"),
    "perfect fronted": (
        CALL.without("time").main(YESTERDAY),
        "yesterday Anna called the doctor",
        "gestern hat Anna den Arzt angerufen",
    ),
    "perfect question": (CALL.question(), "did Anna call the doctor yesterday", "hat Anna gestern den Arzt angerufen"),
    "perfect subordinate": (
        CALL.subordinate(WHETHER),
        "whether Anna called the doctor yesterday",
        "ob Anna gestern den Arzt angerufen hat",
    ),
    "perfect with sein": (FLY.main(), "we flew to Rome on Monday", "wir sind am Montag nach Rom geflogen"),
    "prepositional object": (
        WAIT.main(),
        "I wait for the driver at the station",
        "ich warte am Bahnhof auf den Fahrer",
    ),
    "time manner direction": (
        TRAVEL.main(),
        "we will travel to Vienna by train on Monday",
        "wir werden am Montag mit dem Zug nach Wien reisen",
    ),
    "indefinite after place": (
        BUY.main(),
        "Anna must buy a lamp at the station on Monday",
        "Anna muss am Montag am Bahnhof eine Lampe kaufen",
    ),
    "negated": (KNOW.main(), "Anna does not know", "Anna weiß nicht"),
    "modal question": (TELL.question(), "can you tell me", "können Sie mir sagen"),
    "dative before accusative": (
        BRING.main(),
        "Anna would like to bring Mr Becker the hat",
        "Anna möchte Herrn Becker den Hut mitbringen",
    ),
    "question with want": (HELP.question(), "does she want to help the student", "will sie dem Studenten helfen"),
}


@pytest.mark.parametrize(("clause", "english", "german"), ORDERS.values(), ids=ORDERS)
def test_orders_words_as_written_by_hand(clause, english, german):
    assert clause == Pair(english, german)


def test_prefix_is_last_in_main_and_joined_in_subordinate_clauses():
    clause = Clause(ANNA, word(lex.MEETING, "pick up"), PRESENT, definite(word(lex.PEOPLE, "singer")))
    assert clause.main().de == "Anna holt die Sängerin ab"
    assert clause.question().de == "holt Anna die Sängerin ab"
    assert clause.subordinate(WHETHER).de == "ob Anna die Sängerin abholt"


def test_absent_constituents_leave_no_trace():
    bare = Clause(ANNA, word(lex.MEETING, "wait for"), SHOULD, NOTHING)
    assert bare.main().de == "Anna sollte warten"
