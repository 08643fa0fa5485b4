"""Sentence patterns: each is a function that draws one sentence in English and in German.

What differs in order between the languages is what makes them worth learning: verbs at the end of German clauses,
finite verbs before the subject, separated prefixes, time before manner before direction.
"""

from dataclasses import replace

from examples.demo_corpus.phrasebook import lexicon as lex
from examples.demo_corpus.phrasebook.actions import (
    FUTURES,
    KNOWN,
    MISHAP,
    NEED,
    ORDER,
    POLITE,
    QUESTIONS,
    STATEMENTS,
    TRADE,
    WE,
    WHO,
    YOU,
    I,
)
from examples.demo_corpus.phrasebook.clause import (
    CAN,
    DEFINITE,
    MUST,
    NOTHING,
    PAST,
    PRESENT,
    WANT,
    WILL,
    Clause,
    Pair,
    Subject,
    counted,
    definite,
    join,
)
from examples.demo_corpus.phrasebook.phrases import Draw

THAT, WHETHER, BECAUSE, IF = (Pair(*words.split()) for words in ("that dass", "whether ob", "because weil", "if wenn"))
WHEN, WHERE, WHY, WHAT = (Pair(*words.split()) for words in ("when wann", "where wo", "why warum", "what was"))


def ended(words: Pair, mark: str = ".") -> Pair:
    """Capital letter and final mark."""
    return Pair(*(side[0].upper() + side[1:] + mark for side in words))


def embed(matrix: Pair, clause: Pair) -> Pair:
    """A subordinate clause after its main clause; German wants a comma."""
    return Pair(f"{matrix.en} {clause.en}", f"{matrix.de}, {clause.de}")


# Main clauses ---------------------------------------------------------------------------------------------------------


def statement(draw: Draw) -> Pair:
    """Anna will call the doctor tomorrow: the infinitive or participle stands last."""
    return ended(draw.deed(STATEMENTS).main())


def fronted(draw: Draw) -> Pair:
    """Yesterday Anna called the doctor: the finite verb before the subject."""
    clause = draw.deed(STATEMENTS)
    part = "time" if clause.time else "place"
    return ended(clause.without(part).main(getattr(clause, part)))


def habit(draw: Draw) -> Pair:
    """Anna calls the doctor every day: the prefix stands last."""
    return ended(replace(draw.action(draw.subject(), PRESENT, KNOWN), time=draw.time(PRESENT)).main())


def timetable(draw: Draw) -> Pair:
    """The train to Vienna leaves at half past eight."""
    return ended(draw.schedule().main())


def travel(draw: Draw) -> Pair:
    """We will travel to Vienna by train on Friday: the other way round in German."""
    return ended(draw.journey(draw.subject(), draw.one(STATEMENTS)).main())


def price(draw: Draw) -> Pair:
    """The lamp costs twenty-five euros; Anna sold the lamp for forty euros; how much does the lamp cost?"""
    kind, lamp = draw.random.random(), draw.priced(draw.goods())
    if kind < 0.15:
        return ended(lamp.without("goal").question(Pair("how much", "wie viel")), "?")
    if kind < 0.55:
        return ended(lamp.main())
    deal = draw.action(draw.subject(), draw.one(STATEMENTS), (replace(TRADE, verbs=lex.TRADE[:2], open=False),))
    return ended(replace(deal, goal=join(Pair("for", "für"), draw.price())).main())


def count(draw: Draw) -> Pair:
    """We ordered six fresh apples at the market."""
    action = draw.one((TRADE, ORDER, NEED))
    things = counted(draw.few(), draw.one(action.nouns), draw.adjective(action.adjectives))
    form = draw.one((PAST, PRESENT) if action is NEED else (PAST, WILL, MUST))
    clause = Clause(draw.subject(), draw.one(action.verbs), form, things, definite=False)
    return ended(clause.main() if action is NEED else draw.setting(clause).main())


def give(draw: Draw) -> Pair:
    """Anna showed her brother the letter: dative before accusative."""
    subject, form = draw.subject(), draw.one(STATEMENTS)
    action = draw.one((TRADE, replace(TRADE, nouns=lex.PAPERS, adjectives=lex.STYLES)))
    verb = draw.one(lex.GIVING)
    things, known = draw.object(action, verb, subject.owner)
    time = draw.time(form) if draw.chance(0.4) else NOTHING
    recipient = draw.person("dat", subject.owner)
    return ended(Clause(subject, verb, form, things, known, recipient=recipient, time=time).main())


def negation(draw: Draw) -> Pair:
    """Anna did not call the doctor yesterday."""
    clause = draw.action(draw.subject(), draw.one(QUESTIONS), KNOWN)
    time = draw.time(clause.form) if draw.chance(0.4) else NOTHING
    return ended(replace(clause, negated=True, time=time).main())


def request(draw: Draw) -> Pair:
    """Please call the doctor tomorrow: bitte rufen Sie ... an."""
    clause = draw.action(POLITE, PRESENT, KNOWN)
    time = draw.time(WILL) if draw.chance(0.6) else NOTHING
    return ended(replace(clause, time=time).main(Pair("", "bitte")))


# Questions ------------------------------------------------------------------------------------------------------------


def question(draw: Draw) -> Pair:
    """Did you call the doctor yesterday?"""
    return ended(draw.deed(QUESTIONS, draw.one((YOU, draw.subject()))).question(), "?")


def wh_question(draw: Draw) -> Pair:
    """When, where, why did Anna buy the lamp? What did she buy? Who bought it?"""
    kind = draw.one((WHEN, WHERE, WHY, WHAT, WHO.words))
    if kind is WHO.words:
        return ended(draw.deed(QUESTIONS, WHO).main(), "?")
    return ended(asked(draw, draw.one((YOU, draw.subject())), kind).question(kind), "?")


def asked(draw: Draw, subject: Subject, word: Pair) -> Clause:
    """A clause without the constituent that a question word stands for."""
    form = draw.one(QUESTIONS)
    if word is WHERE:
        return draw.located(subject, form).without("place")
    if word is WHAT:
        return draw.setting(draw.action(subject, form, (TRADE, ORDER))).without("object")
    return draw.deed((form,), subject).without(*(("time",) if word is WHEN else ()))


# Subordinate clauses --------------------------------------------------------------------------------------------------


def reason(draw: Draw) -> Pair:
    """Anna sold the lamp because she needs a car: weil ... braucht."""
    subject = draw.subject()
    main = draw.action(subject, draw.one((PAST, PAST, WILL)))
    actions, form = draw.one((((NEED,), PRESENT), ((MISHAP,), PAST), (None, MUST), (None, WANT)))
    clause = draw.action(subject.again(), form, actions or KNOWN)
    return ended(embed(main.main(), clause.subordinate(BECAUSE)))


def report(draw: Draw) -> Pair:
    """Peter says that Anna has to call the doctor: dass ... anrufen muss."""
    subject = draw.one((I, WE, draw.subject()))
    verb = draw.one((*lex.HOLDING, *lex.KNOW)) if subject in (I, WE) else draw.one((*lex.HOLDING, *lex.KNOW, *lex.SAY))
    clause = draw.schedule() if draw.chance(0.4) else draw.deed(STATEMENTS, draw.subject(subject))
    return ended(embed(Clause(subject, verb, PRESENT).main(), clause.subordinate(THAT)))


def doubt(draw: Draw, other: Subject) -> tuple[Pair, str]:
    """What indirect questions hang on, and their mark: Anna does not know; Anna asks; do you know; can you tell me."""
    kind = draw.random.randrange(4)
    if kind == 0:
        return Clause(draw.subject(other), lex.KNOW[0], PRESENT, negated=True).main(), "."
    if kind == 1:
        return Clause(draw.third(other), lex.ASK[0], PRESENT).main(), "."
    if kind == 2:
        return Clause(YOU, lex.KNOW[0], PRESENT).question(), "?"
    return Clause(YOU, lex.TELL[0], CAN, recipient=Pair("me", "mir")).question(), "?"


def whether(draw: Draw) -> Pair:
    """Do you know whether the bank opens at nine o'clock? ob ... aufmacht."""
    subject = draw.subject()
    matrix, mark = doubt(draw, subject)
    clause = draw.schedule() if draw.chance(0.4) else draw.deed(QUESTIONS, subject)
    return ended(embed(matrix, clause.subordinate(WHETHER)), mark)


def indirect(draw: Draw) -> Pair:
    """Do you know when the train to Vienna leaves? wann ... abfährt."""
    subject, word = draw.subject(), draw.one((WHEN, WHERE, WHY, WHAT))
    matrix, mark = doubt(draw, subject)
    timetable = word is WHEN and draw.chance(0.7)
    clause = draw.schedule().without("time") if timetable else asked(draw, subject, word)
    return ended(embed(matrix, clause.subordinate(word)), mark)


def condition(draw: Draw) -> Pair:
    """If it rains tomorrow, we will visit the museum; or the other way round."""
    if draw.chance(0.4):
        then = draw.action(draw.subject(), draw.one(FUTURES))
        return conditional(
            draw.one((draw.weather(), replace(draw.schedule(), time=draw.clock()))), then, draw.chance(0.5)
        )
    subject, given_first = draw.subject(), draw.chance(0.5)
    tense, actions = draw.one(((PRESENT, (NEED,)), (WANT, KNOWN), (PRESENT, KNOWN)))
    # the name comes first, its pronoun second
    first, second = (subject, subject.again()) if given_first else (subject.again(), subject)
    return conditional(draw.action(first, tense, actions), draw.action(second, draw.one(FUTURES)), given_first)


def conditional(given: Clause, then: Clause, given_first: bool) -> Pair:
    """Put a condition before or after what follows from it; before it, German inverts the main clause."""
    condition = given.subordinate(IF)
    if not given_first:
        return ended(embed(then.main(), condition))
    return ended(Pair(f"{condition.en}, {then.english_main()}", f"{condition.de}, {then.german_question()}"))


def relative(draw: Draw) -> Pair:
    """The lamp that Anna bought costs twenty euros; we need the lamp that Anna bought."""
    noun, subject = draw.one(lex.GOODS), draw.subject()
    verb = draw.one((*lex.TRADE, *lex.MISHAPS, *(lex.REPAIR if noun in lex.MACHINES else ())))
    inner = Clause(subject, verb, PAST).subordinate(Pair("that", DEFINITE["acc"][noun.gender]))
    if draw.chance(0.5):
        return ended(embed(Clause(draw.subject(subject), lex.NEED[0], PRESENT, definite(noun)).main(), inner))
    head = definite(noun, "nom")
    return ended(draw.priced(Subject(Pair(f"{head.en} {inner.en}", f"{head.de}, {inner.de},"), "er")).main())
