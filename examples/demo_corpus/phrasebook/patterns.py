"""Draw sentences: each pattern is a function that draws one sentence in English and in German.

What differs in order between the languages is what makes them worth learning: verbs at the end of German clauses,
finite verbs before the subject, separated prefixes, time before manner before direction.
"""

from dataclasses import replace

from examples.demo_corpus.phrasebook import lexicon as lex
from examples.demo_corpus.phrasebook.actions import NEED, ORDER, QUESTIONS, STATEMENTS, TRADE, WE, YOU, I
from examples.demo_corpus.phrasebook.clause import CAN, MUST, PAST, PRESENT, WILL, Clause, Pair, Subject, counted, join
from examples.demo_corpus.phrasebook.phrases import Draw

THAT, WHETHER = Pair("that", "dass"), Pair("whether", "ob")


def ended(words: Pair, mark: str = ".") -> Pair:
    """Add a capital letter and the final mark."""
    return Pair(*(side[0].upper() + side[1:] + mark for side in words))


def embed(matrix: Pair, clause: Pair) -> Pair:
    """Append a subordinate clause to its main clause; German needs a comma."""
    return Pair(f"{matrix.en} {clause.en}", f"{matrix.de}, {clause.de}")


# Main clauses ---------------------------------------------------------------------------------------------------------


def fronted(draw: Draw) -> Pair:
    """Draw a fronted time, such as "Yesterday Anna called the doctor": in German the verb precedes the subject."""
    clause = draw.deed(STATEMENTS)
    part = "time" if clause.time else "place"
    return ended(clause.without(part).main(getattr(clause, part)))


def timetable(draw: Draw) -> Pair:
    """Draw an event, such as "The train to Vienna leaves at half past eight"."""
    return ended(draw.schedule().main())


def travel(draw: Draw) -> Pair:
    """Draw a journey, such as "We will travel to Vienna by train on Friday", in the opposite order in German."""
    return ended(draw.journey(draw.subject(), draw.one(STATEMENTS)).main())


def price(draw: Draw) -> Pair:
    """Draw a price, such as "The lamp costs twenty-five euros", a sale, or a question for the price."""
    choice, lamp = draw.random.random(), draw.priced(draw.goods())
    if choice < 0.15:
        return ended(lamp.without("goal").question(Pair("how much", "wie viel")), "?")
    if choice < 0.55:
        return ended(lamp.main())
    deal = draw.action(draw.subject(), draw.one(STATEMENTS), (replace(TRADE, verbs=lex.TRADE[:2], open=False),))
    return ended(replace(deal, goal=join(Pair("for", "für"), draw.price())).main())


def count(draw: Draw) -> Pair:
    """Draw a number of things, such as "We ordered six fresh apples at the market"."""
    action = draw.one((TRADE, ORDER, NEED))
    things = counted(draw.few(), draw.one(action.nouns), draw.adjective(action.adjectives))
    form = draw.one((PAST, PRESENT) if action is NEED else (PAST, WILL, MUST))
    clause = Clause(draw.subject(), draw.one(action.verbs), form, things, definite=False)
    return ended(clause.main() if action is NEED else draw.setting(clause).main())


# Questions ------------------------------------------------------------------------------------------------------------


def question(draw: Draw) -> Pair:
    """Draw a question, such as "Did you call the doctor yesterday?"."""
    return ended(draw.deed(QUESTIONS, draw.one((YOU, draw.subject()))).question(), "?")


# Subordinate clauses --------------------------------------------------------------------------------------------------


def report(draw: Draw) -> Pair:
    """Draw reported speech, such as "Peter says that Anna has to call the doctor": dass ... anrufen muss."""
    subject = draw.one((I, WE, draw.subject()))
    verb = draw.one((*lex.HOLDING, *lex.KNOW)) if subject in (I, WE) else draw.one((*lex.HOLDING, *lex.KNOW, *lex.SAY))
    clause = draw.schedule() if draw.chance(0.4) else draw.deed(STATEMENTS, draw.subject(subject))
    return ended(embed(Clause(subject, verb, PRESENT).main(), clause.subordinate(THAT)))


def doubt(draw: Draw, other: Subject) -> tuple[Pair, str]:
    """Draw the main clause of an indirect question, and its mark: Anna does not know; Anna asks; do you know; ..."""
    choice = draw.random.randrange(4)
    if choice == 0:
        return Clause(draw.subject(other), lex.KNOW[0], PRESENT, negated=True).main(), "."
    if choice == 1:
        return Clause(draw.third(other), lex.ASK[0], PRESENT).main(), "."
    if choice == 2:
        return Clause(YOU, lex.KNOW[0], PRESENT).question(), "?"
    return Clause(YOU, lex.TELL[0], CAN, recipient=Pair("me", "mir")).question(), "?"


def whether(draw: Draw) -> Pair:
    """Draw an indirect question, such as "Do you know whether the bank opens at nine o'clock?": ob ... aufmacht."""
    subject = draw.subject()
    matrix, mark = doubt(draw, subject)
    clause = draw.schedule() if draw.chance(0.4) else draw.deed(QUESTIONS, subject)
    return ended(embed(matrix, clause.subordinate(WHETHER)), mark)
